"""Masked learning-to-optimise transformer: layers that improve the beams, each followed by gradient ascent steps.

One set of weights serves all numbers of users and antennas up to the trained size.

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
"""Largest size of the shipped weights, and the size of those of `DTSAOLift`."""

STRIDE = 0.01 / 128
"""Initial step length in the Euclidean metric: the printed 0.01 for the mean over the printed batch of 128.

With a step of 0.01 along the gradient of a single instance, as in Eq. 8, the ascent fails at 20 dB."""


class MTSAOLift(Solver):
    """Weighted sum rate by T layers, each a transformer and Q steps of gradient ascent; O(T Q K N (K + N)).

    Initial beams are regularised zero forcing (Eq. 5). Layer t updates the auxiliary channel and the beams, and
    gradient ascent on the rate of the true channel follows (Eqs. 8 and 10)::

        H_t, W_t0 = layer_t(H_(t-1), W_(t-1)),     W_t = ascent(W_t0, Q),     H_0 = H

    The solution of an instance is the best W_t, including regularised zero forcing. Users and antennas without a
    channel are masked: they have no influence and no power.

    With ``tokens = "coordinates"`` and ``metric = "euclidean"`` the layers and steps are the published ones. The tokens
    ``"invariants"`` are powers, rates and angles, for which the method is permutation equivariant in users and
    antennas. In the metric ``"auxiliary"``, ``H_t^H H_t + m I``, an ascent step is a WMMSE step for suitable H_t.

    ascent_steps  Q after every layer; None for the number used in training.
    checkpoint    "shipped", "random" (untrained), or a file written by `beamforge train`; only random weights are
                  trainable, unless `requires_grad_` is called. The settings below are for random weights.
    size          largest K and N.
    layers        number T of layers.
    width         dimension of a token.
    heads         number of attention heads per axis.
    depth         dimension of a head.
    tokens        "invariants" or "coordinates".
    metric        "auxiliary" or "euclidean".

    Raises `UnsupportedProblem` for more users or antennas than the weights support, `ConfigError` for invalid settings.

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
    """Whether layers update the auxiliary channel; otherwise it is the true channel (Eq. 11)."""

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
        self.window = range(layers)  # of trained layers
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
        """Raise `UnsupportedProblem` for more users or antennas than the weights support."""
        if max(K, N) > self.size:
            raise UnsupportedProblem(
                f"{self.model} has weights for up to {self.size} users and {self.size} antennas, got {K} and {N}; "
                "methods for any number: multipliers, wmmse"
            )

    def walk(self, H: Tensor, masks: Masks, weights: Tensor) -> list[Tensor]:
        """Beams of full power [B, N, K] before the first and after each layer; in training, up to the window's end."""
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
        """Train the layers of a window; earlier layers are evaluated without gradients, later ones are skipped."""
        self.window = window

    def depth(self) -> int:
        """The number of layers."""
        return len(self.layers)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """``-mean_t log R(W_t)`` over the layers t of the window, averaged over the batch.

        With logarithms, relative gains of small and large instances have equal weight; the sum of rates (Eqs. 7 and 25)
        suits instances of one size. In validation the loss is that of the last layer.

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
    """`mt-sao-lift` without the lift: the auxiliary channel is the true channel in every layer (Eq. 11)."""

    model = "mt-sao"
    lifts = False


class DTSAOLift(MTSAOLift):
    """`mt-sao-lift` for a single size K = N = `size`, 8 with the shipped weights; trained without masks."""

    model = "dt-sao-lift"
    tried_on = (DEDICATED, DEDICATED)
    scope = f"{DEDICATED} users and {DEDICATED} antennas, or as many as its own weights were trained for"

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network) and {network.users, network.antennas} == {DEDICATED}

    def fits(self, problem: Problem, network: Network) -> bool:
        return super().fits(problem, network) and {network.users, network.antennas} == {self.size}
