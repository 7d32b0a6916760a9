"""Digital beams of least power with their derivatives, by the implicit function theorem.

Source: the hybrid beamforming paper, Theorem 4.2; the phase is free here, and the equations are eliminated blockwise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from beamforge.classical.hybrid.uplink import rank_one, uplink_powers


class LeastPowerBeams(torch.autograd.Function):
    """Beams ``x_k = sqrt(p_k) b_k`` [B, K, M] (rows, of any phase), uplink powers q [B, K] and feasibility [B].

    The derivative is that of the solution of ``Y_k x_k = 0`` and ``x_k^H Gw_k x_k / target_k - sum_{j != k} x_j^H Gi_k
    x_j = 1`` with ``Y_k = D + sum_{j != k} q_j Gi_j - q_k Gw_k / target_k``. It exists where the principal eigenvalues
    are simple. Y_k is singular along x_k alone, so K-by-K equations give the part along x_k, and the rest follows from
    ``(Y_k + s x_k x_k^H)^-1``. The gradient is zero for an infeasible instance.
    """

    @staticmethod
    def forward(
        context: Any, wanted: Tensor, interfering: Tensor, weight: Tensor, targets: Tensor, start: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, q, feasibility and iterations, for matrices [B, K, M, M], D [B, M, M], targets and first powers [B, K]."""
        factor, failed = torch.linalg.cholesky_ex(weight)
        usable = failed.eq(0) & finite(factor) & finite(wanted) & finite(interfering) & finite(targets)
        eye = torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device)
        factor = torch.where(usable[:, None, None], factor, eye).unsqueeze(1)
        own, others = (whitened(torch.where(usable[:, None, None, None], G, 0), factor) for G in (wanted, interfering))
        channels = rank_one(torch.where(usable[:, None, None, None], wanted, 0))
        if channels is not None:
            channels = torch.linalg.solve_triangular(factor, channels.unsqueeze(-1), upper=False).squeeze(-1)
        found = uplink_powers(own, others, targets, start, channels)
        ones = torch.ones_like(targets)
        p, _ = torch.linalg.solve_ex(found.crossed.mT, ones)
        feasible = usable & found.feasible & (p > 0).all(-1)
        scaled = found.receivers * torch.where(feasible[:, None], p, 0).sqrt().unsqueeze(-1)
        x = torch.linalg.solve_triangular(factor.mH, scaled.unsqueeze(-1), upper=True).squeeze(-1)
        q = torch.where(feasible[:, None], found.q, 0)
        context.save_for_backward(wanted, interfering, weight, targets, x, q, feasible)
        context.mark_non_differentiable(feasible, found.iterations)
        return x, q, feasible, found.iterations

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, x_bar: Tensor, q_bar: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the arguments of `forward` from those of x and q."""
        whole = context.saved_tensors
        rows = whole[-1].nonzero().squeeze(-1)
        gradients = adjoint(*(tensor[rows] for tensor in (*whole[:-1], x_bar, q_bar)))
        return *(torch.zeros_like(t).index_copy_(0, rows, g) for t, g in zip(whole, gradients, strict=False)), None


def finite(tensor: Tensor) -> Tensor:
    """Boolean [B]: whether all entries of an instance are finite."""
    entries = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return torch.isfinite(entries).flatten(1).all(-1)


def whitened(G: Tensor, factor: Tensor) -> Tensor:
    """``L^-1 G_k L^-H`` [B, K, M, M] for Cholesky factors L [B, 1, M, M]."""
    half = torch.linalg.solve_triangular(factor, G, upper=False)
    white = torch.linalg.solve_triangular(factor, half.mH, upper=False)
    return (white + white.mH) / 2


def adjoint(
    wanted: Tensor,
    interfering: Tensor,
    weight: Tensor,
    targets: Tensor,
    x: Tensor,
    q: Tensor,
    x_bar: Tensor,
    q_bar: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of wanted, interfering, weight and targets from those of x and q.

    With the Jacobian ``[[Y, C], [C^T, 0]]`` of the equations, adjoint variables z [B, K, M] and t [B, K] solve
    ``Y_k z_k + sum_j C_kj t_j = x_bar_k`` and ``Re sum_k C_kj^H z_k = q_bar_j``, where ``C_kj = Gi_j x_k`` and ``C_kk =
    -Gw_k x_k / target_k``.
    """
    users, size = x.shape[1:]
    same = torch.eye(users, dtype=torch.bool, device=x.device)
    others = (~same).to(q.dtype)
    ratio = q / targets
    sums = ((q.unsqueeze(-2) * others).to(x.dtype) @ interfering.flatten(-2)).unflatten(-1, (size, size))
    Y = weight.unsqueeze(1) + sums - ratio[..., None, None] * wanted
    heard = torch.einsum("bkmn,bkn->bkm", wanted, x)
    C = torch.einsum("bjmn,bkn->bkjm", interfering, x)
    C = torch.where(same.unsqueeze(-1), -(heard / targets.unsqueeze(-1)).unsqueeze(2), C)
    along = torch.einsum("bkm,bkjm->bkj", x.conj(), C).real
    t = torch.linalg.solve_ex(along, (x.conj() * x_bar).sum(-1).real)[0]
    rest = x_bar - torch.einsum("bkjm,bj->bkm", C, t.to(x.dtype))
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    unit = x / norm
    rest = rest - unit * (unit.conj() * rest).sum(-1, keepdim=True)
    scale = weight.diagonal(dim1=-2, dim2=-1).real.mean(-1)[:, None, None, None]
    regular = Y + scale * unit.unsqueeze(-1) * unit.conj().unsqueeze(-2)
    z = torch.linalg.solve_ex(regular, rest.unsqueeze(-1))[0].squeeze(-1)
    z = z - unit * (unit.conj() * z).sum(-1, keepdim=True)
    left = q_bar - torch.einsum("bkjm,bkm->bj", C.conj(), z).real
    z = z + x * torch.linalg.solve_ex(along.mT, left)[0].unsqueeze(-1)
    outer = z.unsqueeze(-1) * x.conj().unsqueeze(-2)
    outer = (outer + outer.mH) / 2
    own = x.unsqueeze(-1) * x.conj().unsqueeze(-2)
    mixed = q[..., None, None] * summed_over_others(outer, others) + t[..., None, None] / 2 * summed_over_others(
        own, others
    )
    direct = ratio[..., None, None] * outer + (t / targets)[..., None, None] / 2 * own
    power = (x.conj() * heard).sum(-1).real
    slope = (q * (z.conj() * heard).sum(-1).real + t * power / 2) / targets.square()
    return direct, -mixed, -outer.sum(1), -slope


def summed_over_others(matrices: Tensor, others: Tensor) -> Tensor:
    """``sum_{k != j} M_k`` [B, j, M, M] of matrices [B, k, M, M]."""
    return torch.einsum("jk,bkmn->bjmn", others.to(matrices.dtype), matrices)
