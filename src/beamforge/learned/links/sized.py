"""Base class of learned methods for links under one total power, with a network for each number of links."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from beamforge.classical.links.wmmse import CAPABILITIES, SharedPower
from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.io.weights import Weights, load

SIZES = (4, 16, 64)
"""Numbers of links for which there are trained weights."""


class Sized(Solver):
    """A method that maps gains and weights to shares of the power, by a network for each number of links.

    A method supplies `model`, its name, and `network`, an untrained network for L links: a module from `SharedPower`
    (weights that sum to one) to shares [B, L] that are not negative and sum to one.

    checkpoint  "shipped" (chosen by the number of links), "random" (untrained), or a file that `beamforge train` wrote;
                the weights have gradients only if they are random, or after `requires_grad_`.
    links       number of links of random weights.

    Raises `ConfigError` for weights that do not fit, and `UnsupportedProblem` for another number of links.
    """

    capabilities = CAPABILITIES
    tried_on = (SIZES[0], 1)
    scope = "4, 16 or 64 links, or those that its own weights were trained for"
    model: ClassVar[str]

    def __init__(self, checkpoint: str = "shipped", links: int = 4, **settings: Any) -> None:
        super().__init__()
        if links < 1:
            raise ConfigError(f"links must be at least 1, got {links}")
        self.shipped = checkpoint == "shipped"
        self.networks = nn.ModuleDict()
        if checkpoint == "random":
            self.networks[str(links)] = self.network(links, **settings)
        elif not self.shipped:
            self._load(load(self.model, Path(checkpoint)), checkpoint)

    def network(self, links: int, **settings: Any) -> nn.Module:
        """An untrained network."""
        raise NotImplementedError

    def _load(self, trained: Weights, origin: str) -> None:
        """Build the network of trained weights, with the settings of their training."""
        settings = {name: value for name, value in trained.settings.items() if name not in ("checkpoint", "weights")}
        try:
            links = int(settings.pop("links", 4))
            network = self.network(links, **settings)
            prefix = f"networks.{links}."
            network.load_state_dict({name.removeprefix(prefix): value for name, value in trained.tensors.items()})
        except (TypeError, ValueError, RuntimeError):
            raise ConfigError(f"checkpoint must fit this version's {self.model}, got {origin}") from None
        self.networks[str(links)] = network.requires_grad_(False)

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network) and network.users in SIZES

    def fits(self, problem: Problem, network: Network) -> bool:
        if self.shipped:
            return self.supports(problem, network)
        return super().supports(problem, network) and str(network.users) in self.networks

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data = SharedPower.of(problem, observation.network)
        return Solution.closed_form(data.beams(self.shares(data)))

    def shares(self, data: SharedPower) -> Tensor:
        """Shares [B, L] of the power, computed in the precision and on the device of the data."""
        L = data.direct.shape[-1]
        if self.shipped and str(L) not in self.networks:
            self._load(load(self.model, name=f"{self.model}-{L}"), f"{self.model}-{L}")
        network = self.networks[str(L)]
        weights = {name: value.to(data.direct) for name, value in network.state_dict(keep_vars=True).items()}
        total = data.weights.sum(-1, keepdim=True)
        data = data._replace(weights=data.weights / torch.where(total > 0, total, 1))
        return functional_call(network, weights, (data,))


def bound_problem(instance: Instance) -> tuple[Problem, SharedPower]:
    """The sum rate problem of a batch of training data, bound to its network, and its `SharedPower`."""
    problem = build_problem("sum-rate", instance.context).bind(instance.observation.network)
    return problem, SharedPower.of(problem, instance.observation.network)


def ordered(data: SharedPower) -> tuple[SharedPower, Tensor]:
    """The links sorted by falling direct gain, so a network need not learn that order is irrelevant; and the order.

    >>> from beamforge.scenarios.power_control import Weak
    >>> _, data = bound_problem(Weak(links=4).sample(2))
    >>> bool((ordered(data)[0].direct.diff() <= 0).all())
    True
    """
    order = data.direct.argsort(-1, descending=True)
    rows = data.cross.take_along_dim(order.unsqueeze(-1), -2)
    cross = rows.take_along_dim(order.unsqueeze(-2), -1)
    direct, weights = (value.take_along_dim(order, -1) for value in (data.direct, data.weights))
    return SharedPower(cross, direct, weights, data.power), order


def restored(shares: Tensor, order: Tensor) -> Tensor:
    """Undo `ordered` for shares [B, L]."""
    return shares.take_along_dim(order.argsort(-1), -1)


def detached(tree: Any) -> Any:
    """A tree of tensors without gradients."""
    return batching.tree_map(lambda leaf: leaf.detach(), tree)
