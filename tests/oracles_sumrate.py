"""Independent NumPy references for the sum rate, by definition, for one instance."""

from __future__ import annotations

import numpy as np


def sum_rate(H, W, serving, noise, weights=None):
    """Weighted sum rate in bit/s/Hz; H [T, K, N], W [N, K], serving [K], noise [K]."""
    K = H.shape[1]
    total = 0.0
    for k in range(K):
        power = [abs(H[serving[d], k] @ W[:, d]) ** 2 for d in range(K)]
        interference = sum(power[d] for d in range(K) if d != k)
        total += (1 if weights is None else weights[k]) * np.log2(1 + power[k] / (interference + noise[k]))
    return total


def textbook_wmmse(H, W, serving, noise, limit, weights, steps):
    """WMMSE with power limits of transmitters: N x N eigendecompositions and bisection; W and the rates."""
    T, K, N = H.shape
    rates = []
    for _ in range(steps):
        rates.append(sum_rate(H, W, serving, noise, weights))
        u, w = np.zeros(K, complex), np.zeros(K)
        for k in range(K):
            amplitude = np.array([H[serving[d], k] @ W[:, d] for d in range(K)])
            total = np.sum(np.abs(amplitude) ** 2) + noise[k]
            u[k] = amplitude[k] / total
            w[k] = 1 / (1 - abs(amplitude[k]) ** 2 / total)
        W = np.zeros((N, K), complex)
        for t in range(T):
            A = sum(weights[j] * w[j] * abs(u[j]) ** 2 * np.outer(H[t, j].conj(), H[t, j]) for j in range(K))
            mine = [k for k in range(K) if serving[k] == t]
            B = np.stack([weights[k] * w[k] * u[k] * H[t, k].conj() for k in mine], 1)
            values, vectors = np.linalg.eigh(A)
            phi = np.sum(np.abs(vectors.conj().T @ B) ** 2, 1)
            power = lambda mu: np.sum(phi / (values + mu) ** 2)  # noqa: E731, B023
            low, high = 1e-14 * values[-1], np.sqrt(phi.sum() / limit[t])
            if power(low) > limit[t]:
                for _ in range(200):
                    middle = (low + high) / 2
                    low, high = (middle, high) if power(middle) > limit[t] else (low, middle)
            W[:, mine] = vectors @ ((vectors.conj().T @ B) / (values + low)[:, None])
    return W, np.array(rates)


def pareto_sum_rate(H, power, noise, points=400, rounds=4):
    """Best sum rate of two users of two transmitters on the exact Pareto boundary, lambda MRT + (1 - lambda) ZF.

    Source of the boundary: E. Jorswieck, E. Larsson, D. Danev, IEEE Trans. Signal Process. 56 (2008), corollary 2.
    """

    def unit(v):
        return v / np.linalg.norm(v)

    pairs = []
    for t in range(2):
        own, other = H[t, t].conj(), H[t, 1 - t].conj()
        zero_forcing = own - other * (other.conj() @ own) / (other.conj() @ other)
        pairs.append((unit(own), unit(zero_forcing)))
    low, high, best = np.zeros(2), np.ones(2), 0.0
    for _ in range(rounds):
        grids = [np.linspace(low[t], high[t], points) for t in range(2)]
        signal, leak = [], []
        for t in range(2):
            mrt, zf = pairs[t]
            v = grids[t][:, None] * mrt + (1 - grids[t][:, None]) * zf
            v = np.sqrt(power) * v / np.linalg.norm(v, axis=1, keepdims=True)
            signal.append(np.abs(v @ H[t, t]) ** 2)
            leak.append(np.abs(v @ H[t, 1 - t]) ** 2)
        rates = np.log2(1 + signal[0][:, None] / (noise + leak[1][None, :]))
        rates = rates + np.log2(1 + signal[1][None, :] / (noise + leak[0][:, None]))
        best = max(best, rates.max())
        at = np.unravel_index(rates.argmax(), rates.shape)
        centre = np.array([grids[t][at[t]] for t in range(2)])
        width = (high - low) / points * 2
        low, high = np.maximum(centre - width, 0), np.minimum(centre + width, 1)
    return best


def two_user_power_grid(G, noise, limit, total, points=1201):
    """Best sum rate of two single-antenna users over a grid of powers; `limit` of each, or of both if `total`."""
    p = np.linspace(0, limit, points)
    first, second = np.meshgrid(p, p, indexing="ij")
    rate = np.log2(1 + G[0, 0] * first / (G[0, 1] * second + noise))
    rate = rate + np.log2(1 + G[1, 1] * second / (G[1, 0] * first + noise))
    return rate[(first + second <= limit * (1 + 1e-12)) if total else slice(None)].max()


def mimo_rate(H, W, user, noise, weights):
    """Weighted sum rate of users with several antennas, joint decoding; H [K, M, N], W [N, D], user [D], noise [K]."""
    total = 0.0
    for k in range(len(H)):
        A = H[k] @ W
        S, other = A[:, user == k], A[:, user != k]
        R = other @ other.conj().T + noise[k] * np.eye(len(A))
        total += weights[k] * np.linalg.slogdet(np.eye(len(A)) + np.linalg.solve(R, S @ S.conj().T))[1] / np.log(2)
    return total


def textbook_mimo_wmmse(H, W, user, noise, power, weights, steps):
    """WMMSE with U_k, W_k and a bisected multiplier (Shi et al. 2011, Table I); one transmitter. Returns the beams."""
    K, M, N = H.shape
    for _ in range(steps):
        A, right = np.zeros((N, N), complex), np.zeros((N, len(user)), complex)
        for k in range(K):
            heard = H[k] @ W
            C = heard @ heard.conj().T + noise[k] * np.eye(M)
            mine = user == k
            U = np.linalg.solve(C, heard[:, mine])
            E = np.eye(mine.sum()) - U.conj().T @ heard[:, mine]
            Q = weights[k] * np.linalg.inv(E)
            A += H[k].conj().T @ U @ Q @ U.conj().T @ H[k]
            right[:, mine] = H[k].conj().T @ U @ Q
        values, vectors = np.linalg.eigh(A)
        energy = np.sum(np.abs(vectors.conj().T @ right) ** 2, 1)
        spent = lambda m, values=values, energy=energy: np.sum(energy / (np.maximum(values, 0) + m) ** 2)  # noqa: E731
        low, high = 1e-12, 1.0
        while spent(high) > power:
            high *= 2
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if spent(middle) > power else (low, middle)
        W = vectors @ ((vectors.conj().T @ right) / (np.maximum(values, 0) + high)[:, None])
    return W
