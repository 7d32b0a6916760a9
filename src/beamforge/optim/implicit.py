"""Derivatives of fixed points by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from beamforge.core import batching


def attach_fixed_point(step: Callable[[Any], Any], state: Any) -> Any:
    """Give a fixed point ``x = f(x, theta)`` its derivatives by the implicit function theorem.

    ``dx = (I - df/dx)^-1 (df/dtheta) dtheta``: one differentiable evaluation of `step` gives the dependence on theta.
    In the backward pass the gradient g is replaced by the solution of ``(I - J^T) v = g``; the Jacobian J [B, n, n] of
    the packed state comes from n vector-Jacobian products and is factored directly. Gradients are exact at a fixed
    point where the map is a contraction, whatever acceleration found it. Second derivatives raise `RuntimeError`.

    step   the map, which may use tensors (theta) that require gradients.
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
        """[B, i, j] = d f_i / d x_j, all rows in one batched reverse pass."""
        with torch.enable_grad():
            image = batching.pack(step(fixed))
        one = torch.eye(size, dtype=image.dtype, device=image.device).unsqueeze(1).expand(-1, *image.shape)

        def pulled_back(rows: Tensor, *, together: bool) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(
                image, inputs, rows, retain_graph=True, allow_unused=True, is_grads_batched=together
            )

        try:
            found = pulled_back(one, together=True)
        except RuntimeError:  # an operator without a batching rule
            parts = zip(*(pulled_back(row, together=False) for row in one), strict=True)
            found = tuple(None if part[0] is None else torch.stack([*filter(torch.is_tensor, part)]) for part in parts)
        known = [x.new_zeros(size, *x.shape) if g is None else g for x, g in zip(inputs, found, strict=True)]
        return torch.stack([batching.pack(list(row)) for row in zip(*known, strict=True)], 1)

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:
            if torch.is_grad_enabled():  # create_graph=True
                raise RuntimeError('gradient="implicit" has no second derivatives: use gradient="unrolled"')
            J = jacobian()
            system = torch.eye(size, dtype=J.dtype, device=J.device) - J.mT
            return torch.linalg.solve_ex(system, gradient.unsqueeze(-1))[0].squeeze(-1)

    return batching.unpack(Solve.apply(rows), state)
