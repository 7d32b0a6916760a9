"""The transformer that learns to optimise, for joint sensing and communication: a block for users, one for targets.

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
from beamforge.learned.isac.learned_sensing import LearnedSensing
from beamforge.learned.isac.power_split import balanced, first
from beamforge.learned.isac.question import Question
from beamforge.learned.isac.sensing_block import SensingBlock
from beamforge.learned.l2o.ascent import of_full_power
from beamforge.learned.l2o.invariant_layer import InvariantLayer
from beamforge.learned.l2o.whitening import call

SHIPPED = 16
"""Largest number of users and of antennas that there are weights for."""

PULL = (0.3, 0.1)
"""Weights of the barriers in nats, at first and in the last layer, before any training."""


class SAOLayer(nn.Module):
    """The blocks of one layer: communication on users and antennas, sensing on targets (Fig. 9)."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.communication = InvariantLayer(width, heads, depth)
        self.sensing = SensingBlock(width, heads, depth)


class SAOIsac(LearnedSensing):
    """Weighted sum rate with sensing SNRs to keep, by T layers of two blocks and Q steps of joint ascent each.

    From regularised zero forcing and streams towards the targets, layer t changes the auxiliary channel G, the data
    beams W, the streams F, their share of the power and the weights v of the barriers, and ascent follows::

        G_t, W_t0 = CB_t(G_(t-1), W_(t-1)),   v_t, F_t0 = SB_t(v_(t-1), F_(t-1))              (Eqs. 32 and 34)
        W_t, F_t = ascent of R + sum_m v_m phi(SNR_m / level_m - 1), Q steps, full power      (Eqs. 33 and 35)

    phi is the logarithm, continued below the bound (`barrier`). What differs from the paper: data beams climb the
    barrier too, since they light targets as much as sensing streams do (Eq. 27); steps are those of Gauss and Newton
    (`ascent`); tokens are powers, rates and angles, as those of `mt-sao-lift`. Untrained blocks change no beam.

    In the end the power of every (W_t, F_t) is divided exactly: sensing gets the least share with which all targets are
    met, by F_t or by further streams towards the targets (`power_split.repaired`), and the best answer is kept. An
    instance in which no layer meets all targets is infeasible for this method, not for every one.

    O(T Q (N^3 + (K + M) N^2 + M^2 N (K + M))).

    ascent_steps  Q after every layer; left out, as many as the weights were trained with.
    checkpoint    "shipped", "random" (untrained), or a file that `beamforge train` wrote; only random ones have
                  gradients, unless asked for by `requires_grad_`.
    size          largest K and N, where the weights are random; so are all that follow.
    layers        T.       width  of a token.     heads, depth  of the attention, and the numbers of each head.

    Raises `UnsupportedProblem` for more users or antennas than the weights are for, `ConfigError` for settings out of
    range.

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
        self.window = range(layers)  # of the layers that learn
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

    def walk(self, asked: Question) -> list[tuple[Tensor, Tensor]]:
        """Beams and streams of power one before the first layer and after each; in training, up to the window's last."""
        W, F = first(asked, balanced(asked))
        auxiliary, pull = asked.H, torch.full_like(asked.C[:, 0].real, PULL[0])
        found = [(W, F)]
        fall = (PULL[1] / PULL[0]) ** (1 / max(1, len(self.layers) - 1))
        window = self.window if self.training else range(len(self.layers))
        for place, layer in enumerate(self.layers[: window.stop]):
            assert isinstance(layer, SAOLayer)
            with torch.set_grad_enabled(torch.is_grad_enabled() and place >= window.start):
                auxiliary, pull, W, F = self.advance(layer, asked, auxiliary, pull, W, F)
            pull = pull * fall
            found.append((W, F))
        return found

    def advance(
        self, layer: SAOLayer, asked: Question, auxiliary: Tensor, pull: Tensor, W: Tensor, F: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Auxiliary channel, weights of the barriers, beams and streams after a layer and its ascent."""
        H = asked.H * (1 + asked.leakage(F)).rsqrt().unsqueeze(-1)  # sensing streams are noise to the users
        auxiliary, moved, of_beams = call(layer.communication, H, auxiliary, W, asked.weights, asked.masks)
        pull, F, of_streams = call(layer.sensing, H, asked, pull, W, F)
        data = W.abs().square().sum((-2, -1))
        W = of_full_power(torch.where(asked.masks.samples().mT, moved, 0)) * data.sqrt()[:, None, None]
        W, F = of_full_power(torch.cat([W, F], -1)).split([W.shape[-1], F.shape[-1]], -1)
        length = torch.cat([of_beams, of_streams], -1)
        return auxiliary, pull, *ascend(asked, auxiliary, W, F, pull, length, self.ascent_steps)

    def focus(self, window: range) -> None:
        """Let the layers of a window learn, those before it only be gone through, and leave out those behind it."""
        self.window = window

    def depth(self) -> int:
        """The number of layers."""
        return len(self.layers)

    def learning(self, found: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        return found[1 + self.window.start :] if self.training else found[-1:]

    @property
    def steps(self) -> int:
        return len(self.layers) * self.ascent_steps
