"""The physics of one downlink: who sends, who hears, how loud. No opinion about what is good."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.errors import ShapeError


@dataclass(frozen=True)
class Network:
    """Channels, noise and who serves whom: ``y = H W s + n`` with ``E[s s^H] = I``.

    H        complex [..., T, K, N]: T transmitters, K single-antenna users, N antennas; row k is h_k^H.
    noise    real [..., K], watts, positive.
    serving  integer [..., D]: stream d leaves transmitter serving[d]; streams 0..K-1 carry the users' data,
             streams K..D-1 (sensing) carry none and only interfere.

    Leading dimensions are batch dimensions, any number. Build one with `broadcast`, `multicell`, `interference`
    or `power_control`, which check shapes and precision and raise `ShapeError`.

    >>> H = torch.tensor([[1.0 + 0j, 0.0], [0.0, 2.0]])
    >>> network = Network.broadcast(H, noise=1.0)
    >>> network.rate(torch.eye(2, dtype=H.dtype))
    tensor([1.0000, 2.3219])
    """

    H: Tensor
    noise: Tensor
    serving: Tensor

    @classmethod
    def multicell(cls, H: Tensor, noise: Tensor | float, serving: Tensor, sensing_streams: int = 0) -> Network:
        """Any number of transmitters: H [..., T, K, N], serving [..., D] or [D]."""
        if not isinstance(H, Tensor) or not H.is_complex():
            raise ShapeError(f"H must be a complex tensor, got {getattr(H, 'dtype', type(H).__name__)}")
        if H.dtype not in (torch.complex64, torch.complex128):
            raise ShapeError(f"H must be complex64 or complex128, got {H.dtype}")
        if H.ndim < 3 or 0 in H.shape:
            raise ShapeError(f"H must be non-empty [..., T, K, N], got {tuple(H.shape)}")
        batch, (T, K, _) = H.shape[:-3], H.shape[-3:]
        noise = per_instance("noise", noise, H, (K,))
        if (wrong := ~(noise > 0) | noise.isinf()).any():
            raise ShapeError(f"noise must be positive, finite watts, got {noise[wrong][0].item():g}")
        serving = _integers(serving, H)
        fits = serving.shape[-1:] in ((K,), (K + sensing_streams,)) and serving.shape[:-1] in ((), batch)
        if not fits:
            expected = f"[K] or [..., K] = {(*batch, K)}"
            raise ShapeError(f"serving must be integers {expected}, got {tuple(serving.shape)}")
        if ((serving < 0) | (serving >= T)).any():
            raise ShapeError(f"serving must name transmitters 0..{T - 1}, got {serving.unique().tolist()}")
        if sensing_streams and serving.shape[-1] == K:
            extra = serving.new_zeros((*serving.shape[:-1], sensing_streams))
            serving = torch.cat([serving, extra], -1)
        return cls(H, noise, serving.long().expand(*batch, serving.shape[-1]))

    @classmethod
    def broadcast(cls, H: Tensor, noise: Tensor | float, sensing_streams: int = 0) -> Network:
        """One transmitter: H [..., K, N], noise a scalar, [K] or [..., K]."""
        if not isinstance(H, Tensor) or H.ndim < 2 or 0 in H.shape:
            raise ShapeError(f"H must be non-empty [..., K, N], got {tuple(getattr(H, 'shape', ()))}")
        serving = torch.zeros(H.shape[-2] + sensing_streams, dtype=torch.long, device=H.device)
        return cls.multicell(H.unsqueeze(-3), noise, serving, sensing_streams)

    @classmethod
    def interference(cls, H: Tensor, noise: Tensor | float) -> Network:
        """K transmitters, transmitter k serves user k: H [..., K, K, N] (transmitter, user, antenna)."""
        if not isinstance(H, Tensor) or H.ndim < 3 or H.shape[-3] != H.shape[-2]:
            came = tuple(getattr(H, "shape", ()))
            raise ShapeError(f"H must be [..., K, K, N] with a transmitter a user, got {came}")
        return cls.multicell(H, noise, torch.arange(H.shape[-2], device=H.device))

    @classmethod
    def power_control(cls, G: Tensor, noise: Tensor | float) -> Network:
        """Single antennas: power gains G [..., K, K] (rx, tx) become ``H[t, k, 0] = sqrt(G[k, t])``, so W = sqrt(p)."""
        if not isinstance(G, Tensor) or G.dtype not in (torch.float32, torch.float64):
            raise ShapeError(f"G must be real, float32 or float64, got {getattr(G, 'dtype', type(G).__name__)}")
        if G.ndim < 2 or G.shape[-1] != G.shape[-2] or 0 in G.shape:
            raise ShapeError(f"G must be non-empty [..., K, K] (rx, tx), got {tuple(G.shape)}")
        if (G < 0).any():
            raise ShapeError("G must be non-negative power gains, got a negative one")
        H = torch.complex(G.mT.sqrt(), torch.zeros_like(G)).unsqueeze(-1)
        return cls.interference(H, noise)

    # --- sizes -------------------------------------------------------------------------------------------------------
    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions."""
        return self.H.shape[:-3]

    @property
    def transmitters(self) -> int:
        """T."""
        return self.H.shape[-3]

    @property
    def users(self) -> int:
        """K."""
        return self.H.shape[-2]

    @property
    def antennas(self) -> int:
        """N, antennas of each transmitter."""
        return self.H.shape[-1]

    @property
    def streams(self) -> int:
        """D, K data streams and any sensing streams."""
        return self.serving.shape[-1]

    # --- views -------------------------------------------------------------------------------------------------------
    @property
    def channel(self) -> Tensor:
        """[..., K, N] of a broadcast network; `ShapeError` when there are several transmitters."""
        if self.transmitters != 1:
            raise ShapeError(f"this network has {self.transmitters} transmitters, not one")
        return self.H.squeeze(-3)

    @property
    def gains(self) -> Tensor:
        """Power gains G [..., K, K] (rx, tx) of a single-antenna network whose transmitter k serves user k."""
        return self.H.squeeze(-1).abs().square().mT

    @property
    def gram(self) -> Tensor:
        """``H H^H`` [..., K, K] of a broadcast network."""
        return self.channel @ self.channel.mH

    @property
    def stream_channel(self) -> Tensor:
        """[..., D, K, N]: what every user sees of the transmitter that sends stream d."""
        if self.transmitters == 1:
            return self.H.expand(*self.batch_shape, self.streams, self.users, self.antennas)
        return torch.take_along_dim(self.H, self.serving[..., None, None], dim=-3)

    def whitened(self) -> Network:
        """The same network in units of its noise: row k divided by sqrt(noise_k), noise one."""
        scale = self.noise.rsqrt()[..., None, :, None]
        return Network(self.H * scale, torch.ones_like(self.noise), self.serving)

    # --- physics -----------------------------------------------------------------------------------------------------
    def received(self, W: Tensor) -> Tensor:
        """Amplitudes ``A_kd = h_k^H w_d`` [..., K, D] of the beams W [..., N, D]."""
        if W.shape[-2:] != (self.antennas, self.streams):
            raise ShapeError(f"W must be [..., {self.antennas}, {self.streams}] (N, D), got {tuple(W.shape)}")
        if self.transmitters == 1:
            return self.channel @ W
        return torch.einsum("...dkn,...nd->...kd", self.stream_channel, W)

    def returned(self, A: Tensor) -> Tensor:
        """The adjoint of `received`: column d is ``sum_k h_k A_kd`` [..., N, D], for A [..., K, D]."""
        if self.transmitters == 1:
            return self.channel.mH @ A
        return torch.einsum("...dkn,...kd->...nd", self.stream_channel.conj(), A)

    def sinr(self, W: Tensor) -> Tensor:
        """``|A_kk|^2 / (sum_{d != k} |A_kd|^2 + noise_k)`` [..., K]."""
        power = squared_magnitude(self.received(W))
        return own(power) / (others(power) + self.noise)

    def rate(self, W: Tensor) -> Tensor:
        """``log2(1 + SINR_k)`` [..., K], bit/s/Hz."""
        return torch.log1p(self.sinr(W)) / math.log(2)

    def antenna_power(self, W: Tensor) -> Tensor:
        """Watts at each antenna of each transmitter [..., T, N]."""
        power = squared_magnitude(W)
        if self.transmitters == 1:
            return power.sum(-1).unsqueeze(-2)
        sent = torch.nn.functional.one_hot(self.serving, self.transmitters).to(power.dtype)
        return torch.einsum("...nd,...dt->...tn", power, sent)

    def transmit_power(self, W: Tensor) -> Tensor:
        """Watts of each transmitter [..., T]."""
        return self.antenna_power(W).sum(-1)


def _integers(serving: Tensor, like: Tensor) -> Tensor:
    """`serving` as a tensor beside the channels; `ShapeError` unless it is one of integers."""
    try:
        serving = torch.as_tensor(serving, device=like.device)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"serving must be integers, got {serving!r}") from None
    if serving.is_floating_point() or serving.is_complex() or serving.dtype == torch.bool:
        raise ShapeError(f"serving must be integers, got {serving.dtype}")
    return serving


def squared_magnitude(A: Tensor) -> Tensor:
    """``|A|^2`` without the square root of `abs` (cheaper, and its gradient at zero is zero)."""
    return A.real.square() + A.imag.square()


def own(power: Tensor) -> Tensor:
    """Diagonal [..., K] of [..., K, D]: each user's own stream."""
    return torch.diagonal(power, dim1=-2, dim2=-1)


def others(power: Tensor) -> Tensor:
    """Row sums of [..., K, D] without the diagonal, under a mask: total minus own loses every digit at high SNR."""
    return torch.diagonal_scatter(power, torch.zeros_like(own(power)), dim1=-2, dim2=-1).sum(-1)


def per_instance(name: str, value: Tensor | float, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Broadcast `value` to [*batch, *shape] where `like` is [*batch, ., ., .], in its real precision and device.

    Python scalars and lists are welcome; a tensor of another precision or device is a `ShapeError`, never a cast.
    """
    real, batch = like.real.dtype, like.shape[:-3]
    if isinstance(value, Tensor):
        if value.dtype != real or value.device != like.device:
            expected, came = f"{real} on {like.device}", f"{value.dtype} on {value.device}"
            raise ShapeError(f"{name} must be {expected} like the channel, got {came}")
    else:
        try:
            value = torch.as_tensor(value, dtype=real, device=like.device)
        except (TypeError, ValueError, RuntimeError):
            raise ShapeError(f"{name} must be a real number or an array of them, got {value!r}") from None
    try:
        return value.expand((*batch, *shape))
    except RuntimeError:
        raise ShapeError(
            f"{name} must broadcast to {(*batch, *shape)}, got {tuple(value.shape)}",
        ) from None
