"""The wireless transformer: sum rate under a prescribed fairness by attention over the users' channels.

One network for one target. It sees the channels themselves, and gives directions of beams; powers are equal. Training
maximises the sum rate under a price of unfairness, and the price is found on the way by dual ascent.

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
"""By how much the mean index of a trained network may be short of what is asked of it."""

FORFEIT = 100.0
"""Bit/s/Hz that a whole point of missing fairness costs in validation."""


class WiT(Solver):
    """Sum rate with mean Jain's index at least a target, equal powers, on the paper's cell (K = 12, N = 16).

    The network trained for the nearest target that is not more than 0.005 below the one asked for gives unit beams,
    and each gets P/K watts. Where a batch's mean index is further below than that, as it may be on other channels than
    those of that cell, a network trained for a higher target takes its place.

    jain        target J_LB of a training; left out, that of the weights, or 0.86.
    price       lambda that a training begins with; left out, that of the weights, or 2.
    checkpoint  "shipped" (for every target that there are some for), "random" (untrained), the name of one that is
                shipped (`wit-86`), or a file that `beamforge train` wrote; the last three can be trained on.

    Raises `ConfigError` for a target above those that there are weights for, and for a mean that none of the shipped
    networks reaches, with the largest that can be met.
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
            raise ConfigError(f"checkpoint must fit this version's transformer, got others in {checkpoint}") from None
        self.requires_grad_(False)

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        size = network.users, network.streams.count, network.antennas
        return (
            size == (USERS, USERS, ANTENNAS) and super().supports(problem, network) and equal_weights(problem, network)
        )

    @property
    def trained_jain(self) -> float | None:
        """The target of the weights, None where it is to be found."""
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
        seen = settled(observation.network)
        if self.network is None:
            target, W = fair_enough(asked, seen, power)
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

        The extremes of the batch are its scale, and not to be learned from: their gradients would reward a worse worst
        instance. Since scaled means of different moments cannot be compared, validation has a loss of its own: minus
        the sum rate in bit/s/Hz, and `FORFEIT` times what is missing of J_LB.

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
            loss = FORFEIT * missing.clamp_min(0) - mean
        figures = {"sum_rate": mean, "jain": fairness, "violation": missing, "price": self.dual.price}
        return loss, {name: value.detach().clone() for name, value in figures.items()}

    def adapt(self, figures: Mapping[str, float]) -> None:
        """The dual step, by the mean index of the whole batch."""
        self.dual.adapt(figures["jain"])


def settled(network: Network) -> Network:
    """A network of the same rates, the phase of every user such that ``sum_n d_n^2`` and ``sum_n (Re d_n)^3`` are
    positive, with ``d = h / |h|``.

    Training meets all phases, and what it learns still depends on them a little. So they are settled before use, by
    sums that are as usual with one antenna as with another.
    """
    d = unit(network.channel.mH).mT
    half = -(d * d).sum(-1, keepdim=True).angle() / 2
    turn = torch.polar(torch.ones_like(half), half)
    turn = torch.where((d * turn).real.pow(3).sum(-1, keepdim=True) < 0, -turn, turn)
    return Network.broadcast(network.channel * turn.conj(), network.noise)


def input_features(H: Tensor, power: Tensor) -> Tensor:
    """``[Re d_k, Im d_k, 10 log10(P |h_k|^2)]`` [B, K, 2N + 1] with ``d_k = h_k / |h_k|``, each scaled to about one.

    The paper has always 10 W; here only ``P / s^2`` matters.

    H  channels, rows h_k^H [B, K, N], in units of the noise's square root.

    Source: Eq. 10.
    """
    direction = math.sqrt(2 * ANTENNAS) * unit(H.mH).mT
    gain = power.unsqueeze(-1) * squared_magnitude(H).sum(-1)
    snr_db = 10 * gain.clamp_min(torch.finfo(gain.dtype).tiny).log10()
    return torch.cat([direction.real, direction.imag, ((snr_db - LEVEL_DB) / SPREAD_DB).unsqueeze(-1)], -1)


def targets() -> dict[float, str]:
    """The targets that there are weights for, and the names of these: ``wit-86`` is for 0.86."""
    return {float(f"0.{name.removeprefix('wit-')}"): name for name in names() if name.startswith("wit-")}


def nearest(asked: float) -> float:
    """The target with weights that is nearest to the one asked for, among those at most `SLACK` below it."""
    known = targets()
    able = [target for target in known if target >= asked - SLACK]
    if not able:
        raise ConfigError(
            f"jain must be one that wit was trained for ({', '.join(f'{target:g}' for target in known)}) or less, "
            f"got {asked:g}; methods that reach further: multipliers, pareto"
        )
    return min(able, key=lambda target: abs(target - asked))


def fair_enough(asked: float, network: Network, power: Tensor) -> tuple[float, Tensor]:
    """The least target from `nearest` on that brings a batch's mean index within `SLACK` of what is asked; its beams.

    Instances without a channel, or whose rates are no numbers, do not count.
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
