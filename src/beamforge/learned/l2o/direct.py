"""Networks that compute beams directly, as baselines of the masked transformer with the same training."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate
from beamforge.io.weights import trained_weights
from beamforge.learned.l2o.ascent import Received, lmmse, of_full_power
from beamforge.learned.l2o.masks import Masks
from beamforge.learned.l2o.whitening import call, posed, whitened


class Direct(Solver):
    """Base: beams by one network, whose inputs are the channels and the beams of regularised zero forcing (Eq. 5).

    A subclass supplies its name `model` and an untrained `network`: a module that maps channels H [B, K, N] in units of
    noise and power, initial beams [B, N, K], weights [B, K] and masks to beams, which are then scaled to full power.

    checkpoint  "shipped", "random" (untrained), or a file written by `beamforge train`; only random weights are
                trainable, unless `requires_grad_` is called. The other settings are for random weights.
    layers      number of layers.
    width       dimension of a token.
    heads       number of attention heads.
    depth       dimension of a head.

    Raises `ConfigError` for settings below 1 or a checkpoint that does not fit.
    """

    capabilities = (Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower,)),)
    model: ClassVar[str]

    def __init__(
        self, checkpoint: str = "shipped", layers: int = 4, width: int = 32, heads: int = 4, depth: int = 8
    ) -> None:
        super().__init__()
        form = {"layers": layers, "width": width, "heads": heads, "depth": depth}
        trained = trained_weights(self.model, checkpoint)
        if trained is not None:
            form |= {name: int(trained.settings[name]) for name in form if name in trained.settings}
        if min(form.values()) < 1:
            raise ConfigError(f"layers, width, heads and depth must be at least 1, got {list(form.values())}")
        self.beamformer = self.network(**form)
        if trained is not None:
            try:
                self.load_state_dict(trained.tensors)
            except RuntimeError:
                raise ConfigError(
                    f"checkpoint must fit this version's {self.model}, got others in {checkpoint}"
                ) from None
            self.requires_grad_(False)

    def network(self, **form: Any) -> nn.Module:
        """An untrained network."""
        raise NotImplementedError

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        assert isinstance(problem.maximise, SumRate)
        power = problem.get(TotalPower).limit
        W = self.beams(whitened(observation.network, power), problem.maximise.weights)
        return Solution.closed_form(W * power.sqrt()[:, None, None])

    def beams(self, H: Tensor, weights: Tensor) -> Tensor:
        """Beams of full power [B, N, K]."""
        masks = Masks.of(H)
        W = call(self.beamformer, H, lmmse(H, masks.users), weights, masks)
        return of_full_power(torch.where(masks.samples().mT, W, 0))

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """``-mean log R``, the loss of the masked transformer for its last layer.

        instance  broadcast channels with `p_max` and, where they are not one, `weights` in their context.
        """
        H, weights = posed(instance)
        rate = Received.of(H, self.beams(H, weights)).rate(weights)
        loss = -rate.clamp_min(torch.finfo(rate.dtype).tiny ** 0.5).log().mean()
        return loss, {"sum_rate": rate.detach().mean() / math.log(2)}
