"""Network: channels, noise and streams of a downlink, and the SINRs, rates and powers of beams."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from beamforge.core.errors import ShapeError
from beamforge.core.streams import NO_DATA, Streams, numbers, whole_numbers
from beamforge.core.summaries import Summarised, array, counted, spread


@dataclass(frozen=True, repr=False)
class Network(Summarised):
    """Channels, noise and streams: ``y = H W s + n`` with ``E[s s^H] = I``.

    H                 complex [..., T, K M, N]: T transmitters of N antennas, K users of M antennas, whose M rows follow
                      each other. With M = 1, row k is h_k^H.
    noise             real [..., K], watts at each receive antenna, positive.
    streams           the transmitter of each of the D streams, and the user whose data it carries.
    receive_antennas  M, antennas of each user.

    Any number of leading dimensions are batch dimensions. Build a network with `broadcast`, `multicell`,
    `interference` or `power_control`, which check shapes, precision and values and raise `ShapeError`.

    >>> H = torch.tensor([[1.0 + 0j, 0.0], [0.0, 2.0]])
    >>> network = Network.broadcast(H, noise=1.0)
    >>> [round(rate, 2) for rate in network.rate(torch.eye(2, dtype=H.dtype)).tolist()]
    [1.0, 2.32]
    """

    H: Tensor
    noise: Tensor
    streams: Streams
    receive_antennas: int = 1

    def __post_init__(self) -> None:
        batch, rows = self.H.shape[:-3], self.H.shape[-2]
        sizes = (*batch, rows // self.receive_antennas)
        if self.noise.shape != sizes or self.streams.transmitter.shape[:-1] != batch:
            came = f"{tuple(self.noise.shape)} and {tuple(self.streams.transmitter.shape)}"
            raise ShapeError(f"noise and streams must be {sizes} and {(*batch, 'D')} like the channel, got {came}")

    def summary(self) -> tuple[str, dict[str, str]]:
        """Sizes, precision, mean gain and noise, for `print`."""
        gain = (abs(array(self.H)) ** 2).mean()
        rows = {
            "size": self.sizes,
            "channel": f"{str(self.H.dtype).removeprefix('torch.')}, mean |h|^2 of an antenna {gain:.3g}",
            "noise": f"{spread(self.noise)} W",
        }
        count, sensing = self.streams.count, self.streams.count - self.users
        if self.streams.user is not None:
            rows["streams"] = str(count)
        elif sensing > 0:
            rows["streams"] = f"{count}, {sensing} of them for sensing"
        return "Network", rows

    @property
    def sizes(self) -> str:
        """Numbers of instances, transmitters, antennas and users, in words."""
        instances = f"{counted(math.prod(self.batch_shape), 'instance')} of " if self.batch_shape else ""
        if self.antennas == 1 and self.transmitters == self.users:
            return f"{instances}{counted(self.users, 'single-antenna link')}"
        M = self.receive_antennas
        users = counted(self.users, "user") + (f" of {M} antennas" if M > 1 else "")
        sent = f"{counted(self.transmitters, 'transmitter')} with {counted(self.antennas, 'antenna')}"
        return f"{instances}{sent}, {users}"

    @classmethod
    def multicell(
        cls,
        H: Tensor,
        noise: Tensor | float,
        serving: Tensor,
        stream_user: Tensor | None = None,
        receive_antennas: int = 1,
    ) -> Network:
        """Any number of transmitters: H [..., T, K M, N].

        serving      integers [D] or [..., D]: the transmitter of each stream.
        stream_user  integers [D] or [..., D]: the user whose data a stream carries, -1 for none; by default stream
                     k < K carries the data of user k, and the other streams carry none.
        """
        if not isinstance(H, Tensor) or not H.is_complex():
            raise ShapeError(f"H must be a complex tensor, got {getattr(H, 'dtype', type(H).__name__)}")
        if H.dtype not in (torch.complex64, torch.complex128):
            raise ShapeError(f"H must be complex64 or complex128, got {H.dtype}")
        if H.ndim < 3 or 0 in H.shape:
            raise ShapeError(f"H must be non-empty [..., T, K, N], got {tuple(H.shape)}")
        batch, (T, rows, _) = H.shape[:-3], H.shape[-3:]
        if receive_antennas < 1 or rows % receive_antennas:
            expected = f"a positive divisor of the {rows} rows of H"
            raise ShapeError(f"receive_antennas must be {expected}, got {receive_antennas}")
        K = rows // receive_antennas
        noise = per_instance("noise", noise, H, (K,))
        if (wrong := ~(noise > 0) | noise.isinf()).any():
            raise ShapeError(f"noise must be positive, finite watts, got {noise[wrong][0].item():g}")
        serving = whole_numbers("serving", serving, H, range(T))
        if stream_user is None:
            if serving.ndim == 0 or serving.shape[-1] < K or serving.shape[:-1] not in ((), batch):
                expected = f"[D] or [..., D] = {(*batch, 'D')} with a transmitter for each of at least {K} streams"
                raise ShapeError(f"serving must be integers {expected}, got {tuple(serving.shape)}")
        else:
            stream_user = whole_numbers("stream_user", stream_user, H, range(NO_DATA, K))
            D = stream_user.shape[-1] if stream_user.ndim else 0
            if not D or any(each.shape[:-1] not in ((), batch) for each in (serving, stream_user)):
                came = f"{tuple(serving.shape)} and {tuple(stream_user.shape)}"
                raise ShapeError(f"serving and stream_user must be integers [D] or {(*batch, 'D')}, got {came}")
            if serving.shape[-1] != D:
                raise ShapeError(f"serving must name a transmitter for each of {D} streams, got {serving.shape[-1]}")
            usual = torch.where(numbers(D, H) < K, numbers(D, H), NO_DATA)
            stream_user = None if D >= K and (stream_user == usual).all() else stream_user.expand(*batch, D)
        streams = Streams(serving.expand(*batch, serving.shape[-1]), stream_user)
        return cls(H, noise, streams, receive_antennas)

    @classmethod
    def broadcast(
        cls,
        H: Tensor,
        noise: Tensor | float,
        sensing_streams: int = 0,
        stream_user: Tensor | None = None,
        receive_antennas: int = 1,
    ) -> Network:
        """One transmitter: H [..., K M, N], noise a scalar, [K] or [..., K].

        Each user has ``min(M, N)`` streams; then `sensing_streams` streams without data follow. `stream_user`, integers
        [D] or [..., D], replaces this order: the user whose data each stream carries, -1 for none.
        """
        if not isinstance(H, Tensor) or H.ndim < 2 or 0 in H.shape:
            raise ShapeError(f"H must be non-empty [..., K, N], got {tuple(getattr(H, 'shape', ()))}")
        users, each = H.shape[-2] // max(1, receive_antennas), min(receive_antennas, H.shape[-1])
        if stream_user is None and each > 1:
            data = numbers(users, H).repeat_interleave(each)
            stream_user = torch.cat([data, data.new_full((sensing_streams,), NO_DATA)])
        count = users + sensing_streams if stream_user is None else torch.as_tensor(stream_user).shape[-1]
        serving = torch.zeros(count, dtype=torch.long, device=H.device)
        return cls.multicell(H.unsqueeze(-3), noise, serving, stream_user, receive_antennas)

    @classmethod
    def interference(cls, H: Tensor, noise: Tensor | float) -> Network:
        """K transmitters; transmitter k serves user k: H [..., K, K, N] (transmitter, user, antenna)."""
        if not isinstance(H, Tensor) or H.ndim < 3 or H.shape[-3] != H.shape[-2]:
            came = tuple(getattr(H, "shape", ()))
            raise ShapeError(f"H must be [..., K, K, N] with one transmitter for each user, got {came}")
        return cls.multicell(H, noise, numbers(H.shape[-2], H))

    @classmethod
    def power_control(cls, G: Tensor, noise: Tensor | float) -> Network:
        """Single antennas: power gains G [..., K, K] (rx, tx) become ``H[t, k, 0] = sqrt(G[k, t])``, so W = sqrt(p).

        If G requires gradients, its zeros are replaced by the smallest normal number, where the square root has a
        finite slope, so that gradients with respect to zero gains are finite and correct.
        """
        if not isinstance(G, Tensor) or G.dtype not in (torch.float32, torch.float64):
            raise ShapeError(f"G must be real, float32 or float64, got {getattr(G, 'dtype', type(G).__name__)}")
        if G.ndim < 2 or G.shape[-1] != G.shape[-2] or 0 in G.shape:
            raise ShapeError(f"G must be non-empty [..., K, K] (rx, tx), got {tuple(G.shape)}")
        if (G < 0).any():
            raise ShapeError("G must be non-negative power gains, got a negative one")
        if G.requires_grad:
            G = G + (G == 0) * torch.full_like(G, torch.finfo(G.dtype).tiny)
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
        return self.H.shape[-2] // self.receive_antennas

    @property
    def antennas(self) -> int:
        """N, antennas of each transmitter."""
        return self.H.shape[-1]

    # --- views -------------------------------------------------------------------------------------------------------
    @property
    def channel(self) -> Tensor:
        """[..., K M, N] of a broadcast network; `ShapeError` when there are several transmitters."""
        if self.transmitters != 1:
            raise ShapeError(f"`channel` needs a network with one transmitter, got {self.transmitters}")
        return self.H.squeeze(-3)

    @property
    def gains(self) -> Tensor:
        """Power gains G [..., K, K] (rx, tx) of a single-antenna network whose transmitter k serves user k."""
        G = squared_magnitude(self.H.squeeze(-1)).mT
        zero = G.detach() <= 2 * torch.finfo(G.dtype).tiny  # a zero gain that `power_control` replaced
        return torch.where(zero, G - G.detach(), G)

    @property
    def gram(self) -> Tensor:
        """``H H^H`` [..., K M, K M] of a broadcast network."""
        return self.channel @ self.channel.mH

    @property
    def stream_channel(self) -> Tensor:
        """[..., D, K M, N]: the channels from the transmitter of stream d to every receive antenna."""
        if self.transmitters == 1:
            return self.H.expand(*self.batch_shape, self.streams.count, *self.H.shape[-2:])
        return torch.take_along_dim(self.H, self.streams.transmitter[..., None, None], dim=-3)

    @property
    def reachable(self) -> Tensor:
        """Boolean [..., K]: the user has a nonzero channel from the transmitter of one of its streams."""
        hears = self.stream_channel.ne(0).any(-1).unflatten(-1, (self.users, self.receive_antennas)).any(-1)
        return (hears.mT & self.streams.data_of(self.users)).any(-1)

    def whitened(self) -> Network:
        """The same network with unit noise: the rows of user k divided by sqrt(noise_k)."""
        scale = self.noise.rsqrt().repeat_interleave(self.receive_antennas, -1)
        return replace(self, H=self.H * scale[..., None, :, None], noise=torch.ones_like(self.noise))

    # --- physics -----------------------------------------------------------------------------------------------------
    def apply(self, W: Tensor) -> Tensor:
        """Received amplitudes ``A_kd = h_k^H w_d`` [..., K M, D] of the beams W [..., N, D]."""
        if W.shape[-2:] != (self.antennas, self.streams.count):
            expected = f"[..., {self.antennas}, {self.streams.count}] (N, D)"
            raise ShapeError(f"W must be {expected}, got {tuple(W.shape)}")
        if self.transmitters == 1:
            return self.channel @ W
        return torch.einsum("...dkn,...nd->...kd", self.stream_channel, W)

    def adjoint(self, A: Tensor) -> Tensor:
        """The adjoint of `apply`: column d is ``sum_k h_k A_kd`` [..., N, D], for A [..., K M, D]."""
        if self.transmitters == 1:
            return self.channel.mH @ A
        return torch.einsum("...dkn,...kd->...nd", self.stream_channel.conj(), A)

    def sinr(self, W: Tensor) -> Tensor:
        """``sum over own streams of |A_kd|^2 / (sum over all other streams of |A_kd|^2 + noise_k)`` [..., K].

        With several antennas per user: ``2^rate_k - 1``, the SINR at which a single stream has the user's rate.
        """
        if self.receive_antennas > 1:
            return torch.expm1(math.log(2) * self.rate(W))
        power = squared_magnitude(self.apply(W))
        if self.streams.user is None:
            return own(power) / (others(power) + self.noise)
        mine = self.streams.data_of(self.users)
        return (power * mine).sum(-1) / (power.masked_fill(mine, 0).sum(-1) + self.noise)

    def rate(self, W: Tensor) -> Tensor:
        """Rate of every user [..., K], bit/s/Hz; a user decodes its streams jointly.

        ``log2 det(I + S_k S_k^H (I_k I_k^H + noise_k I)^-1)`` with S_k [M, D] the amplitudes of the user's own streams
        and I_k those of all other streams; with M = 1 this is ``log2(1 + SINR_k)``.
        """
        if self.receive_antennas == 1:
            return spectral_efficiency(self.sinr(W))
        A = self.apply(W).unflatten(-2, (self.users, self.receive_antennas))
        mine = self.streams.data_of(self.users).unsqueeze(-2)
        noise = self.noise.rsqrt()[..., None, None]
        S, others = A.masked_fill(~mine, 0) * noise, A.masked_fill(mine, 0) * noise
        Z = torch.linalg.solve_triangular(plus_identity_factor(others).mH, S, upper=False)
        return 2 * own(plus_identity_factor(Z)).abs().log().sum(-1) / math.log(2)

    def antenna_power(self, W: Tensor) -> Tensor:
        """Watts at each antenna of each transmitter [..., T, N]."""
        power = squared_magnitude(W)
        if self.transmitters == 1:
            return power.sum(-1).unsqueeze(-2)
        return torch.einsum("...nd,...td->...tn", power, self.streams.sent_by(self.transmitters).to(power.dtype))

    def transmit_power(self, W: Tensor) -> Tensor:
        """Watts of each transmitter [..., T]."""
        return self.antenna_power(W).sum(-1)


def spectral_efficiency(sinr: Tensor) -> Tensor:
    """``log2(1 + SINR)``, bit/s/Hz."""
    return torch.log1p(sinr) / math.log(2)


def squared_magnitude(A: Tensor) -> Tensor:
    """``|A|^2`` without the square root of `abs` (cheaper, and its gradient at zero is zero)."""
    return A.real.square() + A.imag.square()


def own(power: Tensor) -> Tensor:
    """Diagonal [..., K] of [..., K, D]: each user's own stream, if stream k carries the data of user k."""
    return torch.diagonal(power, dim1=-2, dim2=-1)


def others(power: Tensor) -> Tensor:
    """Row sums of [..., K, D] without the diagonal.

    The diagonal is masked: total minus own would lose all digits at high SNR.
    """
    return torch.diagonal_scatter(power, torch.zeros_like(own(power)), dim1=-2, dim2=-1).sum(-1)


def plus_identity(C: Tensor) -> Tensor:
    """``C + I`` for matrices C [..., n, n]."""
    return C + torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)


def plus_identity_factor(A: Tensor) -> Tensor:
    """Upper triangular R [..., n, n] with ``R^H R = A A^H + I``, from a QR factorisation, for A [..., n, m]."""
    one = torch.eye(A.shape[-2], dtype=A.dtype, device=A.device).expand(*A.shape[:-1], A.shape[-2])
    return torch.linalg.qr(torch.cat([A.mH, one], -2)).R


def per_instance(
    name: str, value: Tensor | float, like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> Tensor:
    """Broadcast `value` to [*batch, *shape] where `like` is [*batch, ., ., .], on its device.

    The result has the real precision of `like`, unless `dtype` is given. Python scalars and lists are converted; a
    tensor of another precision or device raises `ShapeError`.
    """
    dtype, batch = dtype or like.real.dtype, like.shape[:-3]
    if isinstance(value, Tensor):
        if value.dtype != dtype or value.device != like.device:
            expected, came = f"{dtype} on {like.device}", f"{value.dtype} on {value.device}"
            raise ShapeError(f"{name} must be {expected} like the channel, got {came}")
    else:
        try:
            value = torch.as_tensor(value, dtype=dtype, device=like.device)
        except (TypeError, ValueError, RuntimeError):
            kind = "complex" if dtype.is_complex else "real"
            raise ShapeError(f"{name} must be a {kind} number or an array of them, got {value!r}") from None
    try:
        return value.expand((*batch, *shape))
    except RuntimeError:
        raise ShapeError(
            f"{name} must broadcast to {(*batch, *shape)}, got {tuple(value.shape)}",
        ) from None
