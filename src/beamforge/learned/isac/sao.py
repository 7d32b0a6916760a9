"""Learning-to-optimise transformer for joint sensing and communication: layers of two blocks, and joint ascent.

Source: Y. Zhang, X.-Y. Liu, X. Wang, "Transformer-based learning-to-optimize approach for scalable and generalizable
beamforming", arXiv 2510.13077, Section IV and Algorithm 2; equations are cited by their numbers there.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.io.weights import trained_weights
from beamforge.learned.isac.ascent import ascend
from beamforge.learned.isac.isac_data import IsacData
from beamforge.learned.isac.learned_sensing import LearnedSensing
from beamforge.learned.isac.sensing_block import SensingBlock
from beamforge.learned.isac.streams import initial
from beamforge.learned.l2o.ascent import of_full_power
from beamforge.learned.l2o.invariant_layer import InvariantLayer
from beamforge.learned.l2o.whitening import call

SHIPPED = 16
"""Largest number of users and of antennas of the shipped weights."""

PENALTY = (0.3, 0.1)
"""Barrier weights in nats in the first and in the last layer before training."""


class SAOLayer(nn.Module):
    """Communication block on users and antennas, and sensing block on targets (Fig. 9)."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.communication = InvariantLayer(width, heads, depth)
        self.sensing = SensingBlock(width, heads, depth)


class SAOIsac(LearnedSensing):
    """Weighted sum rate under sensing SNR targets by T layers, each with two blocks and Q steps of joint ascent.

    Initial beams are regularised zero forcing and sensing streams in the regularised null space of the users
    (`initial`). Layer t updates the auxiliary channel G, data beams W, barrier weights v, sensing streams F and the
    power split, and the ascent follows::

        G_t, W_t0 = CB_t(G_(t-1), W_(t-1)),     v_t, F_t0 = SB_t(v_(t-1), F_(t-1))          (Eqs. 32 and 34)
        W_t, F_t = Q steps on R + sum_m v_m phi(SNR_m / level_m - 1), at full power         (Eqs. 33 and 35)

    where phi is the logarithmic barrier, continued below the target (`barrier`). Differences from the paper: the
    barrier is a function of W as well as F, because data beams contribute to sensing SNRs (Eq. 27); steps are
    Gauss-Newton steps (`ascent`); tokens are invariants, as in `mt-sao-lift`, for which the method is permutation
    equivariant in users and targets. Before training, blocks do not change the beams.

    At the end (W_t, F_t) of every layer is repaired exactly: sensing gets the least share of the power that meets all
    targets, with F_t or with additional streams steered to the targets (`power_split.repaired`). The solution is the
    best of all layers, including the initial beams. An instance for which no layer meets all targets is flagged
    infeasible for this method. Users, antennas and targets without a channel are masked: they have no influence.

    The cost is O(T Q (N^3 + (K + M) N^2 + M^2 N (K + M))).

    ascent_steps  Q after every layer; None for the number used in training.
    checkpoint    "shipped", "random" (untrained), or a file written by `beamforge train`; only random weights are
                  trainable, unless `requires_grad_` is called. The settings below are for random weights.
    size          largest K and N.
    layers        number T of layers.
    width         dimension of a token.
    heads         number of attention heads.
    depth         dimension of a head.

    Raises `UnsupportedProblem` for more users or antennas than the weights support, `ConfigError` for invalid settings.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios import Isac
    >>> instance = Isac(users=6, antennas=8, targets=2).sample(count=3, seed=1)
    >>> solution = SAOIsac().solve(build_problem("isac", instance.context), instance)
    >>> solution.W.shape, bool((solution.trace[:, -1] > solution.trace[:, 0]).all())
    (torch.Size([3, 8, 14]), True)
    """

    scope = f"up to {SHIPPED} users and {SHIPPED} antennas, or as many as its own weights were trained for"
    model: ClassVar[str] = "sao-isac"

    def __init__(
        self,
        ascent_steps: int | None = None,
        checkpoint: str = "shipped",
        size: int = SHIPPED,
        layers: int = 8,
        width: int = 24,
        heads: int = 3,
        depth: int = 8,
    ) -> None:
        super().__init__()
        if ascent_steps is not None and ascent_steps < 0:
            raise ConfigError(f"ascent_steps must not be negative, got {ascent_steps}")
        form = {"size": size, "layers": layers, "width": width, "heads": heads, "depth": depth}
        trained = trained_weights(self.model, checkpoint)
        if trained is not None:
            form |= {name: int(trained.settings[name]) for name in form if name in trained.settings}
            ascent_steps = trained.settings.get("ascent_steps") if ascent_steps is None else ascent_steps
        for name, number in form.items():
            if number < 1:
                raise ConfigError(f"{name} must be at least 1, got {number}")
        self.size, layers = form.pop("size"), form.pop("layers")
        self.ascent_steps = 2 if ascent_steps is None else int(ascent_steps)
        self.window = range(layers)  # of trained layers
        self.layers = nn.ModuleList(SAOLayer(**form) for _ in range(layers))
        self.filled(trained, checkpoint)

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network) and max(network.users, network.antennas) <= SHIPPED

    def fits(self, problem: Problem, network: Network) -> bool:
        return super(SAOIsac, type(self)).supports(problem, network)

    def check_size(self, K: int, N: int) -> None:
        if max(K, N) > self.size:
            raise UnsupportedProblem(
                f"{self.model} has weights for up to {self.size} users and {self.size} antennas, got {K} and {N}; "
                "isac-wmmse serves any number"
            )

    def walk(self, data: IsacData) -> list[tuple[Tensor, Tensor]]:
        """(W, F) of total power one before the first and after each layer; in training, up to the window's end."""
        W, F = initial(data)
        auxiliary, penalty = data.H, torch.full_like(data.C[:, 0].real, PENALTY[0])
        found = [(W, F)]
        fall = (PENALTY[1] / PENALTY[0]) ** (1 / max(1, len(self.layers) - 1))
        window = self.window if self.training else range(len(self.layers))
        for place, layer in enumerate(self.layers[: window.stop]):
            assert isinstance(layer, SAOLayer)
            with torch.set_grad_enabled(torch.is_grad_enabled() and place >= window.start):
                auxiliary, penalty, W, F = self.advance(layer, data, auxiliary, penalty, W, F)
            penalty = penalty * fall
            found.append((W, F))
        return found

    def advance(
        self, layer: SAOLayer, data: IsacData, auxiliary: Tensor, penalty: Tensor, W: Tensor, F: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Auxiliary channel, barrier weights, data beams and sensing streams after a layer and its ascent steps."""
        H = data.H * (1 + data.leakage(F)).rsqrt().unsqueeze(-1)  # sensing streams act as noise
        auxiliary, moved, of_beams = call(layer.communication, H, auxiliary, W, data.weights, data.masks)
        penalty, F, of_streams = call(layer.sensing, H, data, penalty, W, F)
        power = W.abs().square().sum((-2, -1))
        W = of_full_power(torch.where(data.masks.samples().mT, moved, 0)) * power.sqrt()[:, None, None]
        W, F = of_full_power(torch.cat([W, F], -1)).split([W.shape[-1], F.shape[-1]], -1)
        length = torch.cat([of_beams, of_streams], -1)
        return auxiliary, penalty, *ascend(data, auxiliary, W, F, penalty, length, self.ascent_steps)

    def focus(self, window: range) -> None:
        """Train the layers of a window; earlier layers are evaluated without gradients, later ones are skipped."""
        self.window = window

    def depth(self) -> int:
        """The number of layers."""
        return len(self.layers)

    def learning(self, found: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        return found[1 + self.window.start :] if self.training else found[-1:]

    @property
    def steps(self) -> int:
        return len(self.layers) * self.ascent_steps
