"""References by definition in NumPy and SciPy, independent of the package."""

import numpy as np
from scipy.optimize import brentq


def rates(H, W, noise):
    """``log2(1 + SINR)`` [B, K] of beams W [B, N, K] on broadcast channels H [B, K, N]."""
    H, W = np.asarray(H), np.asarray(W)
    noise = np.broadcast_to(np.asarray(noise, dtype=float), H.shape[:-1])
    found = np.zeros(H.shape[:-1])
    for b in range(len(H)):
        power = np.abs(H[b] @ W[b]) ** 2
        for k in range(H.shape[1]):
            interference = sum(power[k, j] for j in range(H.shape[1]) if j != k)
            found[b, k] = np.log2(1 + power[k, k] / (interference + noise[b, k]))
    return found


def water_filling(gains, power, weights=None):
    """Powers that maximise ``sum w log(1 + g p)`` with ``sum p = power``: ``p = (w/mu - 1/g)+``."""
    gains = np.asarray(gains, dtype=float)
    weights = np.ones_like(gains) if weights is None else np.asarray(weights, dtype=float)

    def powers(log_mu):
        return np.maximum(weights / np.exp(log_mu) - 1 / gains, 0)

    level = brentq(lambda x: powers(x).sum() - power, -60, np.log((weights * gains).max()), xtol=1e-14)
    return powers(level)


def channels(*shape, seed=0):
    """i.i.d. CN(0, 1) channels, complex128."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)) / np.sqrt(2)
