"""A tiny learned method, and the command line with it: `python toy.py train RECIPE ...`.

TOY_SIGNAL=15@7 in the environment sends the process signal 15 in its seventh step.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import Tensor, nn

from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate
from beamforge.registry import MODELS

RECIPE = """
[model]
name = "toy"
width = 8
[data]
users = [2, 5]
load = [0.5, 1.5]
spread_share = 0.5
[optimiser]
lr = 1e-2
warm_up = 5
[run]
steps = 40
batch = 8
validate_every = 40
validation_batches = 2
checkpoint_every = 10
device = "cpu"
"""


class Toy(Solver):
    """Matched filters with powers from a small network; with dropout, so that random numbers matter."""

    capabilities = (Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower,)),)

    def __init__(self, width: int = 4, dropout: float = 0.1):
        super().__init__()
        self.random, self.calls = dropout > 0, 0
        self.net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, 1, bias=False))

    def beams(self, network):
        H = network.channel
        gain = H.abs().square().sum(-1)
        features = torch.stack([gain.log(), network.noise.log()], -1)
        share = self.net(features).softmax(-2)
        return H.mH * (share.squeeze(-1) / gain).sqrt().unsqueeze(-2)

    def solve_batch(self, problem, observation, start, generator):
        limit = problem.get(TotalPower).limit
        return Solution.closed_form(self.beams(observation.network) * limit.sqrt()[:, None, None])

    def loss(self, instance, generator) -> tuple[Tensor, dict[str, Tensor | float]]:
        if self.training:
            self.calls += 1
            number, _, call = os.environ.get("TOY_SIGNAL", "").partition("@")
            if call == str(self.calls):
                os.kill(os.getpid(), int(number))
        rate = instance.truth.rate(self.beams(instance.observation.network))
        loss = -(instance.context["weights"] * rate).sum(-1).mean()
        if self.random:
            loss = loss * (1 + 1e-3 * torch.rand((), generator=generator))
        return loss, {"least_rate": rate.amin(-1).mean().detach(), "users": float(rate.shape[-1])}


MODEL = ("toy", Toy)

if __name__ == "__main__":
    from beamforge.cli import main

    MODELS["toy"] = Toy  # in this process only; tests within their own process patch it in
    torch.set_num_threads(1)
    sys.exit(main())
