"""Digital beams of least power for SINR targets behind a given analog beamformer.

Source: the hybrid beamforming paper, Eqs. 16-23 and 31 (reconstructed); F. Rashid-Farrokhi, L. Tassiulas, K. J. R. Liu,
IEEE Trans. Commun. 46 (1998).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.hybrid.digital_gradient import LeastPowerBeams


class Digital(NamedTuple):
    """Digital beams; every tensor leads with the batch dimensions, and is 0 for an infeasible instance.

    q         uplink powers [..., K], a warm start for a similar problem.
    p         downlink powers [..., K]: user k's beam is ``sqrt(p_k) b_k``.
    beams     B, complex [..., M, K] with columns b_k of norm one, the last entry of each real and not negative.
    feasible  boolean [...].
    cost      ``sum_k p_k b_k^H D b_k = sum_k q_k`` [...]; infinite for an infeasible instance.
    """

    q: Tensor
    p: Tensor
    beams: Tensor
    feasible: Tensor
    cost: Tensor


def digital_beams(
    wanted: Tensor, interfering: Tensor, weight: Tensor, targets: Tensor, start: Tensor | None = None
) -> Digital:
    """The digital beams of least weighted power that meet SINR targets in noise of power one.

    ::

        minimise   sum_k p_k b_k^H D b_k
        subject to p_k b_k^H Gw_k b_k / (sum_{j != k} p_j b_j^H Gi_k b_j + 1) >= target_k

    By uplink-downlink duality b_k is the principal eigenvector of ``Q_k^-1 Gw_k`` with ``Q_k = D + sum_{j != k} q_j
    Gi_j`` at the fixed point ``q_k = target_k / lambda_max(Q_k^-1 Gw_k)``, found by Newton's method (`uplink_powers`);
    p meets every target with equality. The computation is in double precision, results have that of `wanted`.

    q, p, beams and cost have derivatives with respect to all four arguments (`LeastPowerBeams`), zero for an infeasible
    instance. An instance is infeasible if no beams meet its targets, if D is not positive definite, or if a number is
    not finite.

    wanted       Gw, complex [..., K, M, M], Hermitian positive semidefinite: ``A^H h_k h_k^H A`` for known channels.
    interfering  Gi, likewise; the same tensor for known channels.
    weight       D, complex [..., M, M], Hermitian positive definite: ``A^H A`` for radiated power, I for the power of
                 the digital beams.
    targets      linear, positive [..., K].
    start        q of a similar problem [..., K].

    >>> G = torch.diag_embed(torch.eye(2, dtype=torch.complex128))  # two users that do not interfere
    >>> digital_beams(G, G, torch.eye(2, dtype=torch.complex128), torch.tensor([2.0, 3.0]).double()).p.round(decimals=6)
    tensor([2., 3.], dtype=torch.float64)
    """
    users, size = wanted.shape[-3:-1]
    real, shape = targets.dtype, torch.broadcast_shapes(wanted.shape[:-3], weight.shape[:-2], targets.shape[:-1])

    def flat(tensor: Tensor, *sizes: int) -> Tensor:
        double = torch.complex128 if tensor.is_complex() else torch.float64
        return tensor.to(double).expand(*shape, *sizes).reshape(-1, *sizes)

    x, q, feasible, _ = LeastPowerBeams.apply(
        flat(wanted, users, size, size),
        flat(interfering, users, size, size),
        flat(weight, size, size),
        flat(targets, users),
        None if start is None else flat(start, users),
    )
    solved = feasible[:, None, None]
    norm = torch.linalg.vector_norm(torch.where(solved, x, 1), dim=-1, keepdim=True)
    last = x[..., -1:].detach()
    turned = x[..., -1:].conj() / torch.where(last.abs() > 0, x[..., -1:].abs(), 1)
    B = torch.where(solved, x * torch.where(last.abs() > 0, turned, 1) / norm, 0).mT
    p = torch.where(solved[..., 0], norm.squeeze(-1).square(), 0)
    cost = torch.where(feasible, q.sum(-1), torch.inf)
    found = (q.to(real), p.to(real), B.to(wanted.dtype), feasible, cost.to(real))
    return Digital(*(tensor.reshape((*shape, *tensor.shape[1:])) for tensor in found))
