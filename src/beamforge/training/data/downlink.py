"""Downlinks of many sizes and kinds, as training data."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import complex_normal, from_decibels, require, uniform
from beamforge.scenarios.rayleigh import correlated


@dataclass(frozen=True)
class Downlink:
    """``[data]``: Rayleigh fading from one transmitter, with a random size for each batch.

    ``h_k = sqrt(g_k) R_k^(1/2) z_k`` with ``z_k ~ CN(0, I)``, p_max = 1 W and noise ``n_k / SNR``. Numbers
    are uniform in their ranges. All instances of a batch have the same K and N; all else is drawn independently.

    users             K, uniform in half of all batches and log-uniform in the others, so that few users are not rare.
    load              K/N, rounded to whole antennas.
    snr_db            SNR of a user whose gain and noise are both 0 dB.
    spread_share      share of instances with gains g_k uniform in dB around 0, over an interval of a width drawn from
                      `gain_spread_db`, and noises n_k likewise with `noise_spread_db`; in the others all are 1.
    correlated_share  share with exponential correlation: ``[R_k]_mn = r^|m-n| e^{j theta_k (m-n)}``, r drawn from
                      `correlation`, theta_k uniform on the circle; in the others R_k = I.
    weighted_share    share of instances whose weights of the rates are drawn from `weights`; in the others they are 1.

    Every batch states ``p_max`` [B] and ``weights`` [B, K] in its context. Raises `ConfigError` for ranges that are
    empty or out of range.
    """

    users: tuple[int, int] = (2, 32)
    load: tuple[float, float] = (0.3, 1.6)
    snr_db: tuple[float, float] = (-5.0, 30.0)
    spread_share: float = 0.0
    gain_spread_db: tuple[float, float] = (0.0, 40.0)
    noise_spread_db: tuple[float, float] = (0.0, 0.0)
    correlated_share: float = 0.0
    correlation: tuple[float, float] = (0.0, 0.95)
    weighted_share: float = 0.0
    weights: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        for name in (item.name for item in fields(self)):
            value = getattr(self, name)
            if name.endswith("share"):
                require(0 <= value <= 1, name, "in [0, 1]", value)
            else:
                require(-math.inf < value[0] <= value[1] < math.inf, name, "finite and [least, largest]", value)
        require(self.users[0] >= 1, "users", "at least 1", self.users)
        require(self.load[0] > 0, "load", "positive", self.load)
        require(self.gain_spread_db[0] >= 0, "gain_spread_db", "at least 0", self.gain_spread_db)
        require(self.noise_spread_db[0] >= 0, "noise_spread_db", "at least 0", self.noise_spread_db)
        require(self.correlation[0] >= 0 and self.correlation[1] < 1, "correlation", "in [0, 1)", self.correlation)
        require(self.weights[0] >= 0, "weights", "at least 0", self.weights)

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """Random numbers of a batch, float64; each tensor has `count` rows."""
        K, N = sizes(generator, self.users, self.load)
        spread = uniform(generator, count) < self.spread_share
        correlated_too = uniform(generator, count) < self.correlated_share
        weighted = uniform(generator, count) < self.weighted_share
        one = torch.ones((), dtype=torch.float64)

        def within(name: str, *shape: int) -> Tensor:
            least, largest = getattr(self, name)
            return least + (largest - least) * uniform(generator, *shape)

        def around_zero(name: str) -> Tensor:
            width = torch.where(spread, within(name, count), 0 * one)
            return width.unsqueeze(-1) * (uniform(generator, count, K) - 0.5)

        return {
            "snr_db": within("snr_db", count),
            "gain_db": around_zero("gain_spread_db"),
            "noise_db": around_zero("noise_spread_db"),
            "correlation": torch.where(correlated_too, within("correlation", count), 0 * one),
            "phase": uniform(generator, count, K),
            "weights": torch.where(weighted.unsqueeze(-1), within("weights", count, K), one),
            "fading": complex_normal(generator, count, K, N),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from the numbers drawn for them, in double precision."""
        h, r = draws["fading"], draws["correlation"]
        if (rows := r.nonzero().squeeze(-1)).numel():
            h = h.index_copy(0, rows, correlated(h[rows], r[rows], draws["phase"][rows]))
        h = from_decibels(draws["gain_db"]).sqrt().unsqueeze(-1) * h
        noise = from_decibels(draws["noise_db"] - draws["snr_db"].unsqueeze(-1))
        network = Network.broadcast(h.conj().resolve_conj(), noise)
        return Instance.perfect(network, p_max=torch.ones_like(r), weights=draws["weights"])


def sizes(generator: torch.Generator, users: tuple[int, int], load: tuple[float, float]) -> tuple[int, int]:
    """K and N of a batch: K log-uniform in half of all batches, so that few users are not rare."""
    logarithmic, share, loaded = uniform(generator, 3).tolist()
    least, most = users[0], users[1] + 1
    K = int(least * (most / least) ** share if logarithmic < 0.5 else least + (most - least) * share)
    return K, max(1, round(K / (load[0] + (load[1] - load[0]) * loaded)))
