"""References for the weighted sum rate of links, in nats and watts, with NumPy, SciPy and CVXPY."""

import cvxpy as cp
import numpy as np
from scipy.optimize import minimize

PAPER_G = np.array([[1.53, 0.19, 0.01], [0.01, 1.52, 0.02], [0.16, 0.53, 1.78]])
PAPER_STARTS = ([0.90, 1.50, 0.35], [0.16, 0.85, 1.00])
PAPER_OPTIMUM, PAPER_RATE = [0.7421, 0.1912, 0.9167], 2.0282


def interference(G, n, p):
    """Interference and noise at every receiver."""
    L = len(p)
    return np.array([sum(G[i, j] * p[j] for j in range(L) if j != i) + n[i] for i in range(L)])


def nats(G, n, w, p):
    """``sum_l w_l log(1 + SINR_l)``."""
    return float(sum(w * np.log1p(np.diag(G) * p / interference(G, n, p))))


def slope(G, n, w, p):
    """Gradient of `nats`."""
    below = interference(G, n, p)
    above = below + np.diag(G) * p
    return G.T @ (w / above) - (G - np.diag(np.diag(G))).T @ (w / below)


def shares(G, p):
    """``alpha_lj`` for j up to L, of noise-free sums plus noise `p`: Eq. 5 with n given as the last column of G."""
    total = G[:, :-1] @ p + G[:, -1]
    return G[:, :-1] * p / total[:, None]


def algorithm_one(G, n, w, power, p, beta, outer, tolerance=1e-10):
    """Powers after every outer step of the published Algorithm 1, with each loop run to convergence."""
    z, mu, path = p.copy(), np.zeros_like(p), [p]
    for _ in range(outer):
        alpha = shares(np.column_stack([G, n]), p)
        for _ in range(100_000):
            before, x = p, p
            for _ in range(1000):
                price = (G - np.diag(np.diag(G))).T @ (w / interference(G, n, x))
                new = w @ alpha / (beta * (x - z + mu) + price)
                if np.abs(new - x).max() < tolerance:
                    break
                x = new
            p = new
            z = p + mu - max(np.sum(p + mu) - power, 0) / len(p)
            mu = mu + p - z
            if max(np.abs(p - z).max(), np.abs(p - before).max()) < tolerance:
                break
        path.append(p)
    return np.array(path)


def climb(G, n, w, power, start):
    """A local optimum by SLSQP."""
    found = minimize(
        lambda p: -nats(G, n, w, p),
        start,
        jac=lambda p: -slope(G, n, w, p),
        bounds=[(0, power)] * len(start),
        constraints={"type": "ineq", "fun": lambda p: power - p.sum(), "jac": lambda p: -np.ones_like(p)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x, -found.fun


def grid_optimum(G, n, w, power, steps):
    """The best of a regular grid of three powers that add up to `power`."""
    i, j = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")
    i, j = i[i + j <= steps], j[i + j <= steps]
    P = np.stack([i, j, steps - i - j]) * power / steps
    below = (G - np.diag(np.diag(G))) @ P + n[:, None]
    return (w @ np.log1p(np.diag(G)[:, None] * P / below)).max()


def geometric_program(C, w, b):
    """The minimiser, with sum one, of ``prod_l (sum_j C_lj p_j)^w_l / prod_j p_j^b_j``."""
    p = cp.Variable(len(b), pos=True)
    cost = cp.prod([(C[i] @ p) ** w[i] for i in range(len(w))])
    gain = cp.prod([p[j] ** b[j] for j in range(len(b))])
    cp.Problem(cp.Minimize(cost / gain), [cp.sum(p) <= 1]).solve(gp=True, solver="CLARABEL")
    return p.value / p.value.sum()


def quasi_inverse_program(G, n, w, power):
    """Optimal weighted sum rate, nats, and powers of the quasi-inverse's geometric program in z."""
    F = G / np.diag(G)[:, None] - np.eye(len(n))
    B = F + np.outer(n / np.diag(G), np.ones(len(n))) / power
    inverse = np.linalg.solve(np.eye(len(n)) + B, B)
    assert (inverse >= 0).all()
    x = cp.Variable(len(n))
    heard = [cp.log_sum_exp(np.log(inverse[i]) + x) for i in range(len(n))]
    value = w @ (x - cp.hstack(heard))
    question = cp.Problem(cp.Maximize(value), [heard[i] <= x[i] for i in range(len(n))] + [cp.sum(x) == 0])
    question.solve(solver="CLARABEL")
    p = np.exp(x.value) - inverse @ np.exp(x.value)
    return question.value, power * p / p.sum()


def limited_wmmse(G, noise, weights, limit, start, steps):
    """Powers by WMMSE with a limit per link (Shi et al. 2011, Table I); G [L, L] (rx, tx)."""
    H, v = np.sqrt(G), np.sqrt(start)
    own = np.diag(H)
    for _ in range(steps):
        u = own * v / (G @ v**2 + noise)
        w = 1 / (1 - u * own * v)
        price = G.T @ (weights * w * u**2)
        v = np.clip(weights * w * u * own / np.where(price > 0, price, 1), 0, np.sqrt(limit))
    return v**2


def weighted_rate(G, noise, weights, p):
    """Weighted sum rate of powers p, bit/s/Hz."""
    signal = np.diag(G) * p
    return float(np.sum(weights * np.log2(1 + signal / (G @ p - signal + noise))))


def best_of_limited_starts(G, noise, count=300, steps=600, seed=0):
    """The best sum rates [B], bit/s/Hz, that WMMSE reaches within limits of one from many starts; G [B, L, L].

    As `limited_wmmse`, for all instances and starts at once: one or two links on, halves and quarters of the links at
    random, powers whose logarithms are random.
    """
    rng, L = np.random.default_rng(seed), G.shape[-1]
    one = np.eye(L)
    few = np.maximum(one[:, None], one[None]).reshape(-1, L)
    subsets = rng.random((count, L)) < np.where(np.arange(count) % 2, 0.25, 0.5)[:, None]
    start = np.concatenate([np.maximum(np.concatenate([few, subsets]), 1e-4), 10 ** (-5 * rng.random((count, L)))])
    own = np.sqrt(np.diagonal(G, axis1=1, axis2=2))[:, None]
    v = np.broadcast_to(np.sqrt(start), (len(G), *start.shape))
    for _ in range(steps):
        u = own * v / (v**2 @ G.swapaxes(1, 2) + noise)
        w = 1 / (1 - u * own * v)
        v = np.minimum(w * u * own / ((w * u**2) @ G), 1)
    signal = (own * v) ** 2
    return np.log2(1 + signal / (v**2 @ G.swapaxes(1, 2) - signal + noise)).sum(-1).max(-1)
