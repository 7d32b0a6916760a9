"""Problems of links under one total power, with arrays as input and output."""

from __future__ import annotations

import torch

from beamforge import Network, Problem
from beamforge.classical.links.balancing import amplitudes
from beamforge.core.constraints import TotalPower
from beamforge.core.utilities import SumRate
from beamforge.scenarios import Strong


def solve(kind, G, noise, power, weights=1.0, start=None, **settings):
    """(solution, powers [B, L] as NumPy)."""
    G = torch.as_tensor(G)
    weights = torch.as_tensor(weights, dtype=G.dtype)
    beams = None if start is None else amplitudes(torch.as_tensor(start, dtype=G.dtype))
    network, problem = Network.power_control(G, noise), Problem(SumRate(weights), (TotalPower(power),))
    solution = kind(**settings).solve(problem, network, start=beams)
    return solution, solution.W.abs().square().squeeze(-2).double().numpy()


def strong(B, L, seed=0, **settings):
    """Gains [B, L, L] and weights [B, L] of strong interference."""
    instance = Strong(links=L, random_weights=True, **settings).sample(B, seed=seed, dtype=torch.complex128)
    return instance.truth.gains.numpy(), instance.context["weights"].numpy()
