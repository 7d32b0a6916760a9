"""Selection of a codeword with a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = 5.0
"""The paper's constant of the softmin."""


def selected(costs: Tensor, codewords: Tensor) -> Tensor:
    """The codeword of least cost; its gradient is that of the mean with weights ``softmin(5 cost / least cost)``.

    costs      [B, C], positive; infinite for a codeword that cannot be chosen.
    codewords  complex [B, C, N].

    Returns [B, N]. The least cost in the scale is a constant. A row of infinite costs selects the first codeword,
    without gradient.

    >>> costs = torch.tensor([[2.0, 1.0, torch.inf]], requires_grad=True)
    >>> found = selected(costs, torch.eye(3, dtype=torch.complex64).unsqueeze(0))
    >>> found.detach().real.round()
    tensor([[0., 1., 0.]])
    >>> found.real[0, 1].backward()
    >>> costs.grad.isfinite().all(), bool(costs.grad[0, 1] < 0)
    (tensor(True), True)

    Source: the hybrid beamforming paper, Eqs. 19 and 35, and E. Jang, S. Gu, B. Poole, ICLR 2017 (straight-through).
    """
    least, place = costs.detach().min(-1, keepdim=True)
    possible = torch.isfinite(costs.detach())
    scale = torch.where(torch.isfinite(least), least, 1)
    score = torch.where(possible, torch.where(possible, costs, 0) / scale, torch.inf)
    score = torch.where(possible.any(-1, keepdim=True), score, torch.zeros_like(score))
    soft = torch.softmax(-SHARPNESS * score, -1)
    hard = torch.zeros_like(soft).scatter_(-1, place, 1.0)
    weights = hard + soft - soft.detach()
    return (weights.to(codewords.dtype).unsqueeze(-2) @ codewords).squeeze(-2)
