"""Derivatives of solutions without differentiating the way that led there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from beamforge.core import batching


def attach_fixed_point(step: Callable[[Any], Any], state: Any) -> Any:
    """Give a fixed point ``x = f(x, theta)`` its derivatives by the implicit function theorem.

    ``dx = (I - df/dx)^-1 (df/dtheta) dtheta``: one differentiable evaluation of `step` carries the dependence on theta,
    and on the way back the incoming gradient g is replaced by the solution of ``(I - J^T) v = g``, with the Jacobian J
    [B, n, n] of the packed state built by n vector-Jacobian products and factored directly. Gradients are exact at a
    fixed point to which the map contracts, whatever acceleration found it.

    step   the map, closing over tensors (theta) that may require gradients.
    state  the fixed point, a tree of [B, ...] tensors without gradients.
    """
    with torch.enable_grad():
        if not batching.pack(step(batching.tree_map(torch.Tensor.detach, state))).requires_grad:
            return state
        fixed = batching.tree_map(lambda leaf: leaf.detach().requires_grad_(), state)
        rows = batching.pack(step(fixed))
    inputs = batching.leaves(fixed)
    size = rows.shape[-1]

    def jacobian() -> Tensor:
        """[B, i, j] = d f_i / d x_j."""
        with torch.enable_grad():
            image = batching.pack(step(fixed))
            sums = [image[:, i].sum() for i in range(size)]
        rows = []
        for one in sums:
            grads = torch.autograd.grad(one, inputs, retain_graph=True, allow_unused=True)
            known = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)]
            rows.append(batching.pack(known))
        return torch.stack(rows, 1)

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:
            J = jacobian()
            system = torch.eye(size, dtype=J.dtype, device=J.device) - J.mT
            return torch.linalg.solve_ex(system, gradient.unsqueeze(-1))[0].squeeze(-1)

    return batching.unpack(Solve.apply(rows), state)
