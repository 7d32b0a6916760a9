"""The masked transformer that learns to optimise: layers that better the beams, and steps of ascent after each.

One set of weights serves every number of users and antennas up to the size it was trained for.

Source: Y. Zhang, X.-Y. Liu, X. Wang, "Transformer-based learning-to-optimize approach for scalable and generalizable
beamforming", arXiv 2510.13077; equations are cited by their numbers there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ConfigError, UnsupportedProblem, unknown
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate
from beamforge.io.weights import load
from beamforge.learned.l2o.ascent import Received, ascend, lmmse, metric, of_full_power
from beamforge.learned.l2o.coordinate_layer import CoordinateLayer
from beamforge.learned.l2o.invariant_layer import InvariantLayer
from beamforge.learned.l2o.masks import Masks, applied, padded
from beamforge.learned.l2o.whitening import call, posed, whitened

METRICS = ("auxiliary", "euclidean")
TOKENS = ("invariants", "coordinates")

SHIPPED, DEDICATED = 16, 8
"""Largest size that there are weights for, and the size of those of `DTSAOLift`."""

STRIDE = 0.01 / 128
"""First length of an ascent step in the Euclidean metric: the printed one, of the mean over the printed batch.

A step of 0.01 along the gradient of an instance's own rate, as Eq. 8 reads, leaves no rate at 20 dB."""


class MTSAOLift(Solver):
    """Weighted sum rate by T layers, each a transformer and Q steps of gradient ascent; O(T Q K N (K + N)).

    From regularised zero forcing (Eq. 5), layer t sees the auxiliary channel and the beams and changes both, and
    ascent on the true rate follows (Eqs. 8 and 10)::

        H_t, W_t0 = layer_t(H_(t-1), W_(t-1)),     W_t = ascent(W_t0, Q),     H_0 = H

    The answer of an instance is its best W_t, regularised zero forcing included. Users and antennas without a channel
    are masked: they change nothing, and get nothing.

    With ``tokens = "coordinates"`` and ``metric = "euclidean"`` the layers and steps are the published ones. The
    tokens of ``"invariants"`` are powers, rates and angles, so that relabelled users or antennas have relabelled beams;
    in the metric ``"auxiliary"``, ``H_t^H H_t + m I``, an ascent step is WMMSE's where the layer makes it so.

    ascent_steps  Q after every layer; left out, as many as the weights were trained with.
    checkpoint    "shipped", "random" (untrained), or a file that `beamforge train` wrote; only random ones have
                  gradients, unless asked for by `requires_grad_`.
    size          largest K and N, where the weights are random; so are all that follow.
    layers        T.       width  of a token.     heads  of the attention along each axis.
    tokens        "invariants" or "coordinates".  depth  numbers that a head has of a token.
    metric        "auxiliary" or "euclidean".

    Raises `UnsupportedProblem` for more users or antennas than the weights are for.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios import Rayleigh
    >>> instance = Rayleigh(users=5, antennas=3, snr_db=20.0).sample(count=4, seed=1)
    >>> solution = MTSAOLift().solve(build_problem("sum-rate", instance.context), instance)
    >>> solution.trace.shape, bool((solution.trace[:, -1] > 1.5 * solution.trace[:, 0]).all())
    (torch.Size([4, 9]), True)
    """

    capabilities = (Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower,)),)
    scope = f"up to {SHIPPED} users and {SHIPPED} antennas, or as many as its own weights were trained for"
    model: ClassVar[str] = "mt-sao-lift"
    lifts: ClassVar[bool] = True
    """Whether layers change the auxiliary channel, or it stays the true one (Eq. 11)."""

    def __init__(
        self,
        ascent_steps: int | None = None,
        checkpoint: str = "shipped",
        size: int = 16,
        layers: int = 8,
        width: int = 32,
        heads: int = 4,
        depth: int = 8,
        tokens: str = "invariants",
        metric: str = "auxiliary",
    ) -> None:
        super().__init__()
        if ascent_steps is not None and ascent_steps < 0:
            raise ConfigError(f"ascent_steps must not be negative, got {ascent_steps}")
        form = {"layers": layers, "width": width, "heads": heads, "depth": depth, "size": size}
        trained = None
        if checkpoint != "random":
            trained = load(self.model, None if checkpoint == "shipped" else Path(checkpoint))
            form |= {name: int(trained.settings[name]) for name in form if name in trained.settings}
            tokens, metric = (
                trained.settings.get(name, kind) for name, kind in (("tokens", tokens), ("metric", metric))
            )
            ascent_steps = trained.settings.get("ascent_steps") if ascent_steps is None else ascent_steps
        for name, number in form.items():
            if number < 1:
                raise ConfigError(f"{name} must be at least 1, got {number}")
        for name, word, choices in (("tokens", tokens, TOKENS), ("metric", metric, METRICS)):
            if word not in choices:
                raise ConfigError(unknown(name, word, choices))
        size, layers = form.pop("size"), form.pop("layers")
        self.ascent_steps = 2 if ascent_steps is None else int(ascent_steps)
        self.size, self.tokens, self.metric = size, tokens, metric
        self.window = range(layers)  # of the layers that learn
        self.layers = nn.ModuleList(
            InvariantLayer(**form) if tokens == "invariants" else CoordinateLayer(size, **form) for _ in range(layers)
        )
        if trained is not None:
            try:
                self.load_state_dict(trained.tensors)
            except RuntimeError:
                raise ConfigError(f"checkpoint must fit this version's layers, got others in {checkpoint}") from None
            self.requires_grad_(False)

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network) and max(network.users, network.antennas) <= SHIPPED

    def fits(self, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        assert isinstance(problem.maximise, SumRate)
        power = problem.get(TotalPower).limit
        H, weights = whitened(observation.network, power), problem.maximise.weights
        K, N = H.shape[-2:]
        self.check_size(K, N)
        if self.tokens == "coordinates":
            H, weights = padded(H, self.size), nn.functional.pad(weights, (0, self.size - K))
        beams = torch.stack(self.walk(H, Masks.of(H), weights))
        rates = torch.stack([Received.of(H, W).rate(weights) for W in beams], -1)
        best = rates.nan_to_num(-torch.inf).argmax(-1)
        W = beams[best, torch.arange(len(best), device=best.device), :N, :K] * power.sqrt()[:, None, None]
        status = torch.full_like(best, int(Status.CONVERGED))
        trace = rates.cummax(-1).values / math.log(2)
        return Solution(W, status, torch.full_like(best, len(self.layers) * self.ascent_steps), trace)

    def check_size(self, K: int, N: int) -> None:
        """`UnsupportedProblem` for more users or antennas than the weights are for."""
        if max(K, N) > self.size:
            raise UnsupportedProblem(
                f"{self.model} has weights for up to {self.size} users and {self.size} antennas, got {K} and {N}; "
                "methods for any number: multipliers, wmmse"
            )

    def walk(self, H: Tensor, masks: Masks, weights: Tensor) -> list[Tensor]:
        """Beams of full power [B, N, K] before the first layer and after each; in training, up to the window's last."""
        H = applied(H, masks)
        W, auxiliary = lmmse(H, masks.users), H
        found = [W]
        window = self.window if self.training else range(len(self.layers))
        for place, layer in enumerate(self.layers[: window.stop]):
            with torch.set_grad_enabled(torch.is_grad_enabled() and place >= window.start):
                auxiliary, W = self.advance(layer, H, auxiliary, W, weights, masks)
            found.append(W)
        return found

    def advance(
        self, layer: nn.Module, H: Tensor, auxiliary: Tensor, W: Tensor, weights: Tensor, masks: Masks
    ) -> tuple[Tensor, Tensor]:
        """The auxiliary channel and the beams after a layer and its ascent steps (Eq. 10, or Eq. 11 without a lift)."""
        lifted, moved, length = call(layer, H, auxiliary, W, weights, masks)
        auxiliary = applied(lifted, masks) if self.lifts else auxiliary
        W = of_full_power(torch.where(masks.samples().mT, moved, 0))
        if self.metric == "euclidean":
            return auxiliary, ascend(H, W, weights, self.ascent_steps, STRIDE * length)
        factor = metric(H, auxiliary, W, weights)
        return auxiliary, ascend(H, W, weights, self.ascent_steps, length, factor)

    def focus(self, window: range) -> None:
        """Let the layers of a window learn, those before it only be gone through, and leave out those behind it."""
        self.window = window

    def depth(self) -> int:
        """The number of layers."""
        return len(self.layers)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """``-mean_t log R(W_t)`` over the layers t of the window, the mean over the batch.

        Logarithms make a percent of a small instance count as much as one of a large instance, where the sum of rates
        has instances of one size alone (Eqs. 7 and 25). Validation looks at the last layer.

        instance  broadcast channels with `p_max` and, where they are not one, `weights` in their context; users and
                  antennas without a channel are masked.
        """
        H, weights = posed(instance)
        self.check_size(*H.shape[-2:])
        found = self.walk(H, Masks.of(H), weights)
        first = self.window.start if self.training else len(self.layers) - 1
        rates = torch.stack([Received.of(H, W).rate(weights) for W in found[first + 1 :]])
        tiny = torch.finfo(rates.dtype).tiny ** 0.5
        return -rates.clamp_min(tiny).log().mean(), {"sum_rate": rates[-1].detach().mean() / math.log(2)}


class MTSAO(MTSAOLift):
    """`mt-sao-lift` without the lift: the auxiliary channel is the true one in every layer (Eq. 11)."""

    model = "mt-sao"
    lifts = False


class DTSAOLift(MTSAOLift):
    """`mt-sao-lift` for one size alone: K = N = `size`, 8 with the shipped weights, and nobody masked in training."""

    model = "dt-sao-lift"
    tried_on = (DEDICATED, DEDICATED)
    scope = f"{DEDICATED} users and {DEDICATED} antennas, or as many as its own weights were trained for"

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network) and {network.users, network.antennas} == {DEDICATED}

    def fits(self, problem: Problem, network: Network) -> bool:
        return super().fits(problem, network) and {network.users, network.antennas} == {self.size}
