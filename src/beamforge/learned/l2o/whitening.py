"""Problem data in units in which noise and power are one, and evaluation of layers in any precision."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from beamforge.core.constraints import TotalPower
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.core.utilities import SumRate


def whitened(network: Network, power: Tensor) -> Tensor:
    """H [B, K, N] in units in which the noise of each user and the power limit [B] are one."""
    return network.channel * (power.sqrt().unsqueeze(-1) * network.noise.rsqrt()).unsqueeze(-1)


def posed(instance: Instance) -> tuple[Tensor, Tensor]:
    """Whitened channels [B, K, N] and rate weights [B, K] of a batch of training data."""
    network = instance.observation.network
    problem = build_problem("sum-rate", instance.context).bind(network)
    assert isinstance(problem.maximise, SumRate)
    return whitened(network, problem.get(TotalPower).limit), problem.maximise.weights


def call(layer: nn.Module, H: Tensor, *arguments: Any) -> Any:
    """Evaluate a layer in the precision and on the device of the channels."""
    own = next(layer.parameters())
    if (own.dtype, own.device) == (H.real.dtype, H.device):
        return layer(H, *arguments)
    weights = {name: value.to(H.device, H.real.dtype) for name, value in layer.state_dict(keep_vars=True).items()}
    return functional_call(layer, weights, (H, *arguments))
