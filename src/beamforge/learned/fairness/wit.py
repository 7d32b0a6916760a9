"""The wireless transformer: sum rate under a prescribed fairness by attention over the users' channels.

Each target has its own network. It maps channels to directions of beams; powers are equal. Training maximises the sum
rate minus a priced lack of fairness; dual ascent finds the price during training.

Source: K. Lu, M. Rupp, S. Schwarz, "DNN-enabled multi-user beamforming for throughput maximization under adjustable
fairness"; equations are cited by their numbers there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call

from beamforge.classical.fairness.trade_off import equal_weights
from beamforge.classical.structure import unit
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import EqualPower, MeanJainAtLeast, jain_index
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.network import Network, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate
from beamforge.io.weights import load, names
from beamforge.learned.fairness.transformer import ANTENNAS, USERS, Transformer
from beamforge.training.dual_ascent import DualAscent

LEVEL_DB, SPREAD_DB = 20.0, 7.0
"""Mean and standard deviation of the users' SNR in the paper's cell."""

SLACK = 0.005
"""By how much the mean index of a trained network may fall short of the target."""

VIOLATION_COST = 100.0
"""Cost in validation of a mean index below the target, bit/s/Hz per unit of the index."""


class WiT(Solver):
    """Sum rate with mean Jain's index at least a target, equal powers, on the paper's cell (K = 12, N = 16).

    The network trained for the nearest target not more than 0.005 below the requested one gives unit beams, and each
    gets P/K watts. Where the mean index of a batch falls short by more than 0.005, as it may on other channels, a
    network trained for a higher target is used.

    jain        target J_LB of a training; left out, that of the weights, or 0.86.
    price       initial lambda of a training; left out, that of the weights, or 2.
    checkpoint  "shipped" (all shipped targets), "random" (untrained), the name of shipped weights (`wit-86`), or a file
                that `beamforge train` wrote; the last three can be trained further.

    Raises `ConfigError` for a target above those of the weights, and for a mean that no shipped network reaches, with
    the largest that one does.
    """

    parameter = "trained_jain"
    capabilities = (Capability(SumRate, (Form.BROADCAST,), needs=(EqualPower, MeanJainAtLeast)),)
    tried_on = (USERS, ANTENNAS)
    scope = f"made for {USERS} users of equal weight and {ANTENNAS} antennas"

    def __init__(self, jain: float | None = None, price: float | None = None, checkpoint: str = "shipped") -> None:
        super().__init__()
        self.network: Transformer | None = None
        if checkpoint == "shipped":
            return
        file = Path(checkpoint) if checkpoint.endswith(".safetensors") else None
        trained = None if checkpoint == "random" else load("wit", file, name=checkpoint)
        if jain is None:
            jain = 0.86 if trained is None else float(trained.header["recipe"]["model"]["jain"])
        if not 1 / USERS < jain < 1:
            raise ConfigError(f"jain must be between 1/{USERS} and 1, got {jain:g}")
        self.network, self.dual = Transformer(), DualAscent(jain, 2.0 if price is None else price)
        if trained is None:
            return
        kept = {"dual.price": self.dual.price} if price is not None else {}
        try:
            self.load_state_dict({**trained.tensors, **kept})
        except RuntimeError:
            raise ConfigError(f"checkpoint must fit this version's transformer, got {checkpoint}") from None
        self.requires_grad_(False)

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        size = network.users, network.streams.count, network.antennas
        return (
            size == (USERS, USERS, ANTENNAS) and super().supports(problem, network) and equal_weights(problem, network)
        )

    @property
    def trained_jain(self) -> float | None:
        """The target of the weights; None for "shipped", where `solve` chooses it."""
        return None if self.network is None else self.dual.target

    def fitted(self, problem: Problem, instance: Instance | Observation | Network) -> Solver:
        if self.network is not None:
            return self
        found = self.solve(problem, instance).info[self.parameter].reshape(-1)[0].item()
        return shipped(min(targets(), key=lambda target: abs(target - found)))

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        limit, power = problem.get(MeanJainAtLeast).limit, problem.get(EqualPower).limit
        asked = limit.amax().item()
        seen = with_fixed_phases(observation.network)
        if self.network is None:
            target, W = least_sufficient(asked, seen, power)
        elif asked <= self.dual.target + SLACK:
            target, W = self.dual.target, self.beams(seen, power)
        else:
            raise ConfigError(f"jain must be at most {self.dual.target:g} for these weights, got {asked:g}")
        return Solution.closed_form(W, trained_jain=torch.full_like(limit, target))

    def beams(self, network: Network, power: Tensor) -> Tensor:
        """Beams [B, N, K] of P/K watts each; P is `power` [B]."""
        assert self.network is not None
        x = input_features(network.whitened().channel, power)
        weights = {name: value.to(x) for name, value in self.network.state_dict(keep_vars=True).items()}
        found = functional_call(self.network, weights, (x,)).to(x).unflatten(-1, (2, ANTENNAS))
        return unit(torch.complex(*found.unbind(-2)).mT) * (power / USERS).sqrt()[:, None, None]

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """``-(S + lambda min(J - J_LB, 0))`` with S the mean of the sum rates scaled to [0, 1] over the batch.

        The scale is the range of the batch, without gradients: these would reward a lower minimum. Since scaled means
        of different steps cannot be compared, validation has its own loss: minus the sum rate in bit/s/Hz, plus
        `VIOLATION_COST` times the shortfall from J_LB.

        instance  channels with `p_max` in their context.

        Source: Eqs. 11 and 12.
        """
        rate = instance.truth.rate(self.beams(instance.observation.network, instance.context["p_max"]))
        total, fairness = rate.sum(-1), jain_index(rate).mean()
        mean, missing = total.mean(), self.dual.target - fairness
        if self.training:
            least, largest = total.detach().aminmax()
            loss = self.dual.penalty(fairness) - (mean - least) / (largest - least)
        else:
            loss = VIOLATION_COST * missing.clamp_min(0) - mean
        figures = {"sum_rate": mean, "jain": fairness, "violation": missing, "price": self.dual.price}
        return loss, {name: value.detach().clone() for name, value in figures.items()}

    def adapt(self, figures: Mapping[str, float]) -> None:
        """The dual step, from the mean index of the whole batch."""
        self.dual.adapt(figures["jain"])


def with_fixed_phases(network: Network) -> Network:
    """A network of equal rates with each user's phase fixed: ``sum_n d_n^2`` and ``sum_n (Re d_n)^3`` are positive.

    Here ``d = h / |h|``. The trained network still depends a little on the phases, so they are fixed before use, by
    sums in which all antennas count alike.
    """
    d = unit(network.channel.mH).mT
    half = -(d * d).sum(-1, keepdim=True).angle() / 2
    turn = torch.polar(torch.ones_like(half), half)
    turn = torch.where((d * turn).real.pow(3).sum(-1, keepdim=True) < 0, -turn, turn)
    return Network.broadcast(network.channel * turn.conj(), network.noise)


def input_features(H: Tensor, power: Tensor) -> Tensor:
    """``[Re d_k, Im d_k, 10 log10(P |h_k|^2)]`` [B, K, 2N + 1] with ``d_k = h_k / |h_k|``, each scaled to about one.

    The paper's P is always 10 W; here only ``P / s^2`` matters.

    H  channels, rows h_k^H [B, K, N], in units of the noise's square root.

    Source: Eq. 10.
    """
    direction = math.sqrt(2 * ANTENNAS) * unit(H.mH).mT
    gain = power.unsqueeze(-1) * squared_magnitude(H).sum(-1)
    snr_db = 10 * gain.clamp_min(torch.finfo(gain.dtype).tiny).log10()
    return torch.cat([direction.real, direction.imag, ((snr_db - LEVEL_DB) / SPREAD_DB).unsqueeze(-1)], -1)


def targets() -> dict[float, str]:
    """The targets of the available weights, with the names of these: ``wit-86`` is for 0.86."""
    return {float(f"0.{name.removeprefix('wit-')}"): name for name in names() if name.startswith("wit-")}


def nearest(asked: float) -> float:
    """The available target nearest to the requested one, among those at most `SLACK` below it."""
    known = targets()
    able = [target for target in known if target >= asked - SLACK]
    if not able:
        raise ConfigError(
            f"jain must be one that wit was trained for ({', '.join(f'{target:g}' for target in known)}) or less, "
            f"got {asked:g}; methods that reach higher: multipliers, pareto"
        )
    return min(able, key=lambda target: abs(target - asked))


def least_sufficient(asked: float, network: Network, power: Tensor) -> tuple[float, Tensor]:
    """The least target, from `nearest` on, whose network has a mean index of at least `asked - SLACK`; and its beams.

    Instances without a channel, or with rates that are NaN, are not counted.
    """
    heard, best = network.H.flatten(1).ne(0).any(-1), 0.0
    for target in sorted(known for known in targets() if known >= nearest(asked)):
        W = shipped(target).beams(network, power)
        mean = jain_index(network.rate(W)[heard]).nanmean().item()
        if not mean < asked - SLACK:
            return target, W
        best = max(best, mean)
    most = math.floor(1e3 * best) / 1e3
    raise ConfigError(
        f"jain must be at most {most:g}, the largest mean that WiT reaches on these channels, got {asked:g}"
    )


@cache
def shipped(target: float) -> WiT:
    """The trained network for one of `targets`."""
    return WiT(checkpoint=targets()[target])
