"""The virtual uplink, in which the convex problems are solved: users transmit, and the receivers are optimal (MMSE).

Uplink-downlink duality: SINRs that beams reach in the downlink are reached by the same beams as receivers of the
uplink, with the same total power. There the optimal receivers are ``v_k ∝ (I + sum_j q_j h_j h_j^H)^-1 h_k``, so the
unknowns are K powers. They are stored as ``x_k = q_k |h_k|^2 / noise_k``, the SNR of a user without interference, and
channels as unit rows, so that units, gains and noise powers cause no rounding problems. With several transmitters, h_j
in the equation of user k is the channel from user j to the transmitter of user k.

Source: M. Schubert, H. Boche, "Solution of the multiuser downlink beamforming problem with individual SINR
constraints", IEEE Trans. Veh. Technol. 53 (2004); ``S = (I + X^1/2 C X^1/2)^-1``, C the Gram matrix, is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import unit
from beamforge.core.network import Network, own, squared_magnitude


class Uplink(NamedTuple):
    """Channels of the uplink, always in double precision.

    H            complex [B, T, K, N], divided by the square roots of the noise and of the antennas' `weight`.
    factor       complex [B, T, K or N, K]: ``C = factor^H factor`` is the Gram matrix of the rows of H, each divided by
                 the norm of the user's channel to its transmitter.
    gain         real [B, K]: ``|h_k|^2`` of the user's channel to its transmitter; 0 for a user without a channel.
    transmitter  integer [B, K]: the transmitter of each user's stream.
    """

    H: Tensor
    factor: Tensor
    gain: Tensor
    transmitter: Tensor

    @classmethod
    def of(cls, network: Network, weight: Tensor | None = None) -> Uplink:
        """The uplink of a network, for the weighted power ``sum weight_tn |W_n|^2``, weight [B, T, N] (default one)."""
        H, transmitter = network.H.to(torch.complex128), network.streams.transmitter
        H = H * network.noise.double().rsqrt()[:, None, :, None]
        if weight is not None:
            H = H * weight.rsqrt().unsqueeze(-2)
        norm = squared_magnitude(H).sum(-1)
        gain = norm.squeeze(1) if H.shape[1] == 1 else norm.gather(1, transmitter.unsqueeze(1)).squeeze(1)
        rows = H * torch.where(gain > 0, gain, 1).rsqrt()[:, None, :, None]
        small = H.shape[-1] > H.shape[-2] and not rows.requires_grad  # this QR has no derivative for parallel channels
        factor = torch.linalg.qr(rows.mH, mode="r")[1] if small else rows.mH
        return cls(H, factor, gain, transmitter)

    def receive(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Optimal receivers at powers x [B, K]: SINR [B, K], shares of interference J [B, K, K] and of noise [B, K].

        With ``S = (I + X^1/2 C X^1/2)^-1``: ``SINR_k = 1/S_kk - 1``. In the disturbance of user k, the share of user j
        is ``J_kj = |S_kj|^2 / (S_kk (1 - S_kk))`` (0 for j = k), and the rest is the share of the noise. J is also the
        elasticity ``J_kj = -d log SINR_k / d log x_j``. S comes from a QR factorisation, which does not square the
        condition number of nearly parallel users; the share of the noise is computed directly, so it is never negative.
        """
        heard, root = self.receivers(x)
        itself = torch.eye(x.shape[-1], dtype=torch.bool, device=x.device)
        S = self.rows(root @ root.mH)
        passed = heard @ root @ root.mH  # F X^1/2 S
        error = own(S).real
        rest = self.each((heard.conj() * passed).real.sum(-2))  # 1 - S_kk
        signal = torch.where(error < 0.5, 1 - error, rest)  # the more accurate one
        scale = error * signal
        J = squared_magnitude(S).masked_fill(itself, 0) / scale.unsqueeze(-1)
        return signal / error, J, self.each(squared_magnitude(passed).sum(-2)) / scale

    def receivers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``F X^1/2`` with F the factor, [B, T, ., K], and upper triangular U [B, T, K, K] of ``S = U U^H``."""
        heard = self.factor * x.sqrt()[:, None, None, :]
        eye = torch.eye(x.shape[-1], dtype=heard.dtype, device=x.device).expand(*heard.shape[:2], -1, -1)
        _, R = torch.linalg.qr(torch.cat([eye, heard], -2), mode="reduced" if heard.requires_grad else "r")
        return heard, torch.linalg.solve_triangular(R, eye, upper=True)

    def rows(self, of_transmitter: Tensor) -> Tensor:
        """[B, K, n]: row k of the matrix [B, T, K, n] of the transmitter that serves user k."""
        if of_transmitter.shape[1] == 1:
            return of_transmitter.squeeze(1)
        return torch.take_along_dim(of_transmitter, self.transmitter[:, None, :, None], 1).squeeze(1)

    def each(self, of_transmitter: Tensor) -> Tensor:
        """[B, K]: entry k of the row [B, T, K] of the transmitter that serves user k."""
        if of_transmitter.shape[1] == 1:
            return of_transmitter.squeeze(1)
        return of_transmitter.gather(1, self.transmitter.unsqueeze(1)).squeeze(1)

    def watts(self, x: Tensor) -> Tensor:
        """Uplink powers q [B, K] in watts (for noise one) from powers x; 0 for a user without a channel."""
        return torch.where(self.gain > 0, x / torch.where(self.gain > 0, self.gain, 1), 0)

    def power(self, x: Tensor) -> Tensor:
        """Total power [B] of the uplink, watts."""
        return self.watts(x).sum(-1)

    def beams(self, x: Tensor, sinr: Tensor) -> Tensor:
        """Beams W [B, N, K] along the receivers of powers x that reach `sinr` [B, K] in the downlink.

        The downlink powers p solve ``p_k a_kk / sinr_k - sum_j a_kj p_j = 1``, ``a_kj = |h_k^H v_j|^2``. For the
        unknowns ``q_k p_k a_kk / sinr_k`` the columns are diagonally dominant. A user with x = 0 gets no power.
        """
        q = self.watts(x)
        on = q > 0
        _, root = self.receivers(x)
        V = unit(self.H.mH @ (q.sqrt()[:, None, :, None] * (root @ root.mH)))  # [B, T, N, K]
        if V.shape[1] > 1:
            V = torch.take_along_dim(V, self.transmitter[:, None, None, :], 1)
        V = V.squeeze(1)
        if self.H.shape[1] == 1:
            heard = self.H.squeeze(1) @ V
        else:
            heard = torch.einsum("bjkn,bnj->bkj", torch.take_along_dim(self.H, self.transmitter[..., None, None], 1), V)
        power = squared_magnitude(heard)
        eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        each = torch.where(on, sinr / own(power) / torch.where(on, q, 1), 0)  # watts per unit of the unknown, over q
        system = eye - q.unsqueeze(-1) * power * each.unsqueeze(-2) * (1 - eye)
        unknown = torch.linalg.solve_ex(system, q.unsqueeze(-1))[0].squeeze(-1)
        p = unknown * each
        return V * torch.where(p > 0, p, 0).sqrt().unsqueeze(-2)
