"""Our own: hybrid beams under an outage constraint that use the covariance of the channel errors."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.hybrid.digital import digital_beams
from beamforge.learned.hybrid.gcn import HybridGCN
from beamforge.learned.hybrid.sight import Sight
from beamforge.learned.hybrid.virtual_channels import Virtual, channel_gain, channel_shift, virtual_channels
from beamforge.learned.hybrid.virtual_hybrid import Built


class HybridErrorGCN(HybridGCN):
    """`HybridGCN` with the covariance of the errors in place of the identity in its virtual channels.

    From pilots of power ``rho_k`` and covariances R_k, the error of the linear MMSE estimate has the covariance

        ``E_k = R_k - R_k (R_k + I / rho_k)^-1 R_k``,

    and is independent of the estimate for Gaussian channels. The virtual channels of the digital beams are

        wanted ``c_1 h_k h_k^H + c_2 E_k``,   interfering ``c_3 h_k h_k^H + c_4 E_k``,

    so beams avoid the directions in which the channels of other users are uncertain. Codewords are chosen with
    ``tr E_k / N I`` in place of E_k. Without covariances this is also done for the digital beams, with E_k of white
    channels.

    The settings are those of `HybridGCN`.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios.hybrid import HybridOutage
    >>> instance = HybridOutage(users=2).sample(3)
    >>> problem = build_problem("hybrid-min-power", {**instance.context, "outage": 0.1})
    >>> HybridErrorGCN(checkpoint="random").solve(problem, instance).factors.digital.shape
    torch.Size([3, 5, 2])
    """

    model = "hybrid-error-gcn"

    def build(self, seen: Sight, share: float = 1.0) -> Built:
        E = error_covariance(seen)
        size = E.diagonal(dim1=-2, dim2=-1).real.mean(-1)
        found = virtual_channels(
            self.network, channel_shift(seen.H), channel_gain(seen.H), seen.targets, seen.quality, floor=size
        ).relaxed(share)
        chosen, A = self.analog(seen, found)
        D = A.mH @ A
        heard = A.mH @ seen.H.mH
        G = torch.einsum("bmk,bnk->bkmn", heard, heard.conj())
        behind = A.mH.unsqueeze(1) @ (E / torch.where(size > 0, size, 1)[..., None, None]) @ A.unsqueeze(1)
        digital = digital_beams(*matrices(found, G, behind), D, seen.targets, chosen.q.mT)
        return Built(A, chosen.codewords, digital)


def matrices(levels: Virtual, G: Tensor, E: Tensor) -> tuple[Tensor, Tensor]:
    """Wanted and interfering matrices for errors ``E_k`` behind A, of mean diagonal one before."""

    def both(level: Tensor, floor: Tensor) -> Tensor:
        return level[..., None, None] * G + floor[..., None, None] * E

    return both(levels.wanted, levels.wanted_floor), both(levels.interfering, levels.interfering_floor)


def error_covariance(seen: Sight) -> Tensor:
    """``R - R (R + I/rho)^-1 R = (rho R + I)^-1 R`` [B, K, N, N]; of white channels without covariances."""
    eye = torch.eye(seen.H.shape[-1], dtype=seen.H.dtype, device=seen.H.device)
    rho = seen.quality[..., None, None]
    R = seen.covariance
    if R is None:
        gain = channel_gain(seen.H)[..., None, None]
        return eye * (gain / (1 + rho * gain))
    found = torch.cholesky_solve(R, torch.linalg.cholesky_ex(rho * R + eye)[0])
    return (found + found.mH) / 2
