"""Single-antenna power control: families of gain matrices with weak and with strong interference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import Scenario, require, require_positive, uniform


@dataclass(frozen=True)
class Links(Scenario):
    """L links under one total power limit of 2 W and noise of 0.05 W, and weights that sum to one.

    A subclass supplies the power gains in `gains`. Weights are 1/L each, or uniform on the simplex (Dirichlet(1)) with
    `random_weights`. ``truth`` is the network of ``G`` [B, L, L] (rx, tx); ``context``: ``p_max`` [B] and ``weights``
    [B, L]. Raises `ConfigError` for fields out of range.
    """

    links: int = 4
    random_weights: bool = False
    p_max: float = 2.0
    noise: float = 0.05

    def __post_init__(self) -> None:
        require_positive(self, "links", "p_max", "noise")

    def gains(self, draws: dict[str, Tensor]) -> Tensor:
        """``G`` [B, L, L] from the draws of `draw`."""
        raise NotImplementedError

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "gain": uniform(generator, self.links, self.links),
            "weights": uniform(generator, self.links),
            "coupling": uniform(generator, 1, 1),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        share = exponential(draws["weights"]) if self.random_weights else torch.ones_like(draws["weights"])
        return self.instances(self.gains(draws), share)

    def instances(self, G: Tensor, share: Tensor) -> Instance:
        """Instances of gains ``G`` [B, L, L] with weights proportional to `share` [B, L]."""
        network = Network.power_control(G, self.noise)
        weights = share / share.sum(-1, keepdim=True)
        return Instance.perfect(network, p_max=G.new_full((len(G),), self.p_max), weights=weights)

    @property
    def _own(self) -> Tensor:
        return torch.eye(self.links, dtype=torch.bool)


@dataclass(frozen=True)
class Weak(Links):
    """Weak interference: direct gains 1 + U(0, 1), cross gains U(0, 0.1)/L.

    The spectral condition under which the weighted sum rate is convex in the logarithm of the powers holds for every
    instance, so optima can be certified. Equal powers are nearly optimal here, so this family alone says little about
    a method. Everything else is as in `Links`.

    >>> Weak(links=16).sample(count=5).truth.gains.shape
    torch.Size([5, 16, 16])
    """

    def gains(self, draws: dict[str, Tensor]) -> Tensor:
        return torch.where(self._own, 1 + draws["gain"], 0.1 / self.links * draws["gain"])


@dataclass(frozen=True)
class Strong(Links):
    """Strong interference: direct gains exp(1), cross gains exp(1) times a coupling drawn for each instance.

    The coupling is uniform on [least_coupling, most_coupling]. There are many local optima, and optimal powers switch
    some links off. Everything else is as in `Links`.

    >>> Strong(least_coupling=1.0).sample(count=2).context["p_max"].tolist()
    [2.0, 2.0]
    """

    least_coupling: float = 0.05
    most_coupling: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = "in [0, most_coupling]"
        require(0 <= self.least_coupling <= self.most_coupling, "least_coupling", expected, self.least_coupling)

    def gains(self, draws: dict[str, Tensor]) -> Tensor:
        gain = exponential(draws["gain"])
        coupling = self.least_coupling + (self.most_coupling - self.least_coupling) * draws["coupling"]
        return torch.where(self._own, gain, coupling * gain)


@dataclass(frozen=True)
class ThreeLinks(Scenario):
    """The three links of the power-control paper's worked example, the same in every instance.

    Noise 0.05 and limit 1.85 (milliwatts in the paper, watts here: only their ratio matters), weights 1/3. The optimal
    powers are p = (0.7421, 0.1912, 0.9167).

    Source: the paper's Sec. 4.1.

    >>> ThreeLinks().sample(count=1).truth.gains[0, 2].round(decimals=4)
    tensor([0.1600, 0.5300, 1.7800])
    """

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        G = [[1.53, 0.19, 0.01], [0.01, 1.52, 0.02], [0.16, 0.53, 1.78]]
        return {"G": torch.tensor(G, dtype=torch.float64)}

    def build(self, draws: dict[str, Tensor]) -> Instance:
        G = draws["G"]
        context = {"p_max": G.new_full((len(G),), 1.85), "weights": G.new_full((len(G), 3), 1 / 3)}
        return Instance.perfect(Network.power_control(G, 0.05), **context)


def exponential(uniform: Tensor) -> Tensor:
    """Unit-mean exponential variates from uniform ones on [0, 1)."""
    return -torch.log1p(-uniform)
