"""Centralised baselines for interference channels: fully connected networks with all channels as input."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.network import Network, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.core.utilities import MinRate, SumRate
from beamforge.decentralised.backhaul import SharedMemory
from beamforge.decentralised.base_stations import BaseStations
from beamforge.io.weights import Weights, load
from beamforge.learned.interference.beam_recovery import Duals, recover
from beamforge.learned.interference.objective import UTILITIES, achieved, posed, shortfall
from beamforge.learned.interference.station_view import StationView, beams, direction
from beamforge.learned.multipliers.sum_rate import call_like

SIZE = (4, 8)
"""Number of base stations, and of antennas of each, with shipped weights."""

DEPTH = 3
"""Number of hidden layers."""


class Centralised(Solver):
    """Base: a network with all channels as input, for fixed numbers of base stations and antennas.

    A subclass supplies its name `model`, the number of network outputs `outputs`, and `directed`, which computes beams
    from the outputs. The problem is invariant to the order of the pairs and to the phase of the channels of a user, so
    pairs are sorted by decreasing gain of their own channel, whose first entry is made real. Inputs are the channels in
    units of the noise, the logarithms of the power limits and the weights.

    checkpoint  "shipped" (chosen by the problem), "random" (untrained), or a file written by `beamforge train`; only
                random weights are trainable, unless `requires_grad_` is called.
    problem     "sum-rate" or "max-min", for random weights.
    cells       number of base stations, for random weights.
    antennas    number of antennas of each, for random weights.
    width       width of the hidden layers, for random weights.

    Raises `ConfigError` for settings or weights that do not fit, `UnsupportedProblem` for another size.
    """

    capabilities = tuple(
        Capability(utility, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)) for utility in (SumRate, MinRate)
    )
    tried_on = SIZE
    scope = f"{SIZE[0]} base stations with {SIZE[1]} antennas each, or what its own weights were trained for"
    model: ClassVar[str]

    def __init__(
        self,
        checkpoint: str = "shipped",
        problem: str = "sum-rate",
        cells: int = SIZE[0],
        antennas: int = SIZE[1],
        width: int = 128,
    ) -> None:
        super().__init__()
        self.shipped = checkpoint == "shipped"
        self.networks = nn.ModuleDict()
        if problem not in UTILITIES:
            raise ConfigError(f"problem must be one of {', '.join(UTILITIES)}, got {problem}")
        if min(cells, antennas, width) < 1:
            raise ConfigError(f"cells, antennas and width must be at least 1, got {cells}, {antennas} and {width}")
        self.problem, self.size = problem, (cells, antennas)
        if checkpoint == "random":
            self.networks[problem] = self.network(cells, antennas, width)
        elif not self.shipped:
            self._adopt(load(self.model, Path(checkpoint)), checkpoint)

    def outputs(self, cells: int, antennas: int) -> int:
        """Number of network outputs."""
        raise NotImplementedError

    def directed(self, stations: BaseStations, answer: Tensor) -> Tensor:
        """Beams [B, K, N] within the power limits, from network outputs [B, outputs]."""
        raise NotImplementedError

    def network(self, cells: int, antennas: int, width: int) -> nn.Sequential:
        """An untrained network."""
        sizes = [2 * cells * cells * antennas + 2 * cells, *[width] * DEPTH]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, self.outputs(cells, antennas)))

    def _adopt(self, trained: Weights, origin: str) -> None:
        """Load trained weights and their settings."""
        try:
            settings = trained.settings
            problem, width = str(settings["problem"]), int(settings["width"])
            self.size = (int(settings["cells"]), int(settings["antennas"]))
            network = self.network(*self.size, width)
            prefix = f"networks.{problem}."
            network.load_state_dict({name.removeprefix(prefix): value for name, value in trained.tensors.items()})
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise ConfigError(f"checkpoint must fit this version's {self.model}, got others in {origin}") from None
        self.networks[problem] = network.requires_grad_(False)

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network) and (network.users, network.antennas) == SIZE

    def fits(self, problem: Problem, network: Network) -> bool:
        if self.shipped:
            return self.supports(problem, network)
        trained = name_of(problem) in self.networks and (network.users, network.antennas) == self.size
        return trained and super().supports(problem, network)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        name = name_of(problem)
        return Solution.closed_form(self.beams(name, BaseStations.of(problem, observation.network)).mT)

    def beams(self, problem: str, stations: BaseStations) -> Tensor:
        """Beams [B, K, N] of all base stations."""
        if self.shipped and problem not in self.networks:
            name = f"{self.model}-{problem}"
            self._adopt(load(self.model, name=name), name)
        order = squared_magnitude(stations.own).sum(-1).argsort(dim=-1, descending=True, stable=True)
        there = rearranged(stations, order)
        W = self.directed(there, call_like(self.networks[problem], there.power, seen(there)))
        return W.take_along_dim(order.argsort(-1).unsqueeze(-1), 1)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative utility, normalised by the mean rate of SLNR beams (`shortfall`).

        instance  interference channels with `p_max_transmitter` and `weights` in their context.
        """
        stations = posed(self.problem, instance)
        delivered = squared_magnitude((stations.H @ self.beams(self.problem, stations).unsqueeze(-1)).squeeze(-1))
        view = StationView.of(stations)
        return shortfall(self.problem, view, stations.weights, achieved(view, delivered)), {}


class DirectBeamLearning(Centralised):
    """Direct beam learning: the outputs are the beams, projected onto the power limits; O(K^2 N) times the width.

    Source: H. Huang et al., "Unsupervised learning-based fast beamforming design for downlink MIMO", IEEE Access 7
    (2019), for interference channels as in M. Kim et al., IEEE Access 11 (2023), Sec. III.

    >>> from beamforge.scenarios.interference import Interference
    >>> from beamforge.core.named_problems import build_problem
    >>> instance = Interference(snr_db=0.0).sample(2)
    >>> W = DirectBeamLearning("random").solve(build_problem("sum-rate", instance.context), instance).W
    >>> W.shape, bool((W.abs().square().sum(-2) < 1.001).all())
    (torch.Size([2, 8, 4]), True)
    """

    model = "dbl"

    def outputs(self, cells: int, antennas: int) -> int:
        return 2 * cells * antennas

    def directed(self, stations: BaseStations, answer: Tensor) -> Tensor:
        W = torch.view_as_complex(answer.unflatten(-1, (stations.H.shape[1], -1, 2)).contiguous())
        norm = squared_magnitude(W).sum(-1, keepdim=True)
        return W * (stations.power.unsqueeze(-1) / norm.clamp_min(1)).sqrt()


class NaiveFeatureLearning(Centralised):
    """Naive feature learning: the outputs are interference temperatures and dual variables; (11) gives the beams.

    ``c_kj = P |h_kj|^2 sigmoid(.)``; ``d_kj`` and ``d_kk`` are softplus outputs in units of 1/noise and 1/P. The beams
    are projected onto the power limits.

    Source: M. Kim, H. Lee, M. Kim, I. Lee, "Deep learning based decentralized beamforming methods for multi-antenna
    interference channels", IEEE Access 11 (2023), Sec. V.

    >>> from beamforge.scenarios.interference import Interference
    >>> from beamforge.core.named_problems import build_problem
    >>> instance = Interference(snr_db=0.0).sample(2)
    >>> W = NaiveFeatureLearning("random", "max-min").solve(build_problem("max-min", instance.context), instance).W
    >>> W.shape, bool((W.abs().square().sum(-2) < 1.001).all())
    (torch.Size([2, 8, 4]), True)
    """

    model = "nfl"

    def outputs(self, cells: int, antennas: int) -> int:
        return cells * (2 * cells + 1)

    def directed(self, stations: BaseStations, answer: Tensor) -> Tensor:
        view, K = StationView.of(stations), stations.H.shape[1]
        share, duals = answer.unflatten(-1, (K, -1)).split([K, K + 1], -1)
        d = nn.functional.softplus(duals).clamp_min(1e-6)
        loads = (view.gain * d[..., :K] / d[..., K:]).clamp_max(1e6) * view.others
        z = direction(view, loads)
        heard = SharedMemory().exchange(share.sigmoid() * view.gain * view.others)
        found = recover(view, Duals(loads, d[..., K], z), heard)
        return beams(z, stations.power * found.share.clamp_max(1))


def name_of(problem: Problem) -> str:
    """Name of a problem."""
    return "sum-rate" if isinstance(problem.maximise, SumRate) else "max-min"


def rearranged(stations: BaseStations, order: Tensor) -> BaseStations:
    """The pairs in the given order [B, K], with phases for which the first entries of the own channels are real."""
    H = stations.H.take_along_dim(order[:, :, None, None], 1).take_along_dim(order[:, None, :, None], 2)
    first = torch.diagonal(H[..., 0], dim1=-2, dim2=-1)
    size = first.abs()
    turn = torch.where(size > 0, first.conj() / torch.where(size > 0, size, 1), 1)
    power, weights = (value.take_along_dim(order, -1) for value in (stations.power, stations.weights))
    return BaseStations(H * turn[:, None, :, None], stations.serves, power, weights)


def seen(stations: BaseStations) -> Tensor:
    """Network inputs: all channels, powers and weights of a batch as real rows."""
    H = torch.view_as_real(stations.H).flatten(1)
    return torch.cat([H, stations.power.clamp_min(1e-6).log() / 3, stations.weights], -1)
