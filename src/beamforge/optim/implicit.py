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
    fixed point to which the map contracts, whatever acceleration found it. There are no second derivatives: asking for
    them is a RuntimeError.

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
                raise RuntimeError('no second derivatives follow from a fixed point: ask for gradient="unrolled"')
            J = jacobian()
            system = torch.eye(size, dtype=J.dtype, device=J.device) - J.mT
            return torch.linalg.solve_ex(system, gradient.unsqueeze(-1))[0].squeeze(-1)

    return batching.unpack(Solve.apply(rows), state)
