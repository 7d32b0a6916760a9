"""Independent solutions of the convex problems: second-order cone programs (CVXPY, Clarabel) and NumPy."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np

TIGHT = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}


class LeastPower:
    """Minimise power subject to SINR targets by a cone program, which is built once and solved for many channels.

    H [T, K, N] with rows h_k^H, noise [K], targets [K], serving [K]. Limits are watts per antenna [T, N], per
    transmitter [T] and in total, or None. With ``peak`` the largest share of a limit is minimised instead of the total.
    """

    def __init__(self, T, K, N, serving, antenna=None, transmitter=None, total=None, peak=False):
        self.serving = serving
        self.channel = [cp.Parameter((K, N), complex=True) for _ in range(T)]
        self.own = [cp.Parameter(N, complex=True) for _ in range(K)]  # h_k^H / sqrt(target): linear in each parameter
        W = cp.Variable((N, K), complex=True)
        self.W, self.excess = W, cp.Variable(nonneg=True)
        conditions = []
        for k in range(K):
            heard = [self.channel[serving[j]][k] @ W[:, j] for j in range(K)]
            others = [heard[j] for j in range(K) if j != k]
            signal = self.own[k] @ W[:, k]
            conditions += [cp.imag(signal) == 0, cp.real(signal) >= cp.norm(cp.hstack([*others, np.array(1.0)]))]
        scale = self.excess if peak else 1.0
        for t in range(T):
            sent = [k for k in range(K) if serving[k] == t]
            if not sent:
                continue
            if antenna is not None:
                conditions += [cp.norm(W[n, sent]) <= scale * np.sqrt(antenna[t, n]) for n in range(N)]
            if transmitter is not None:
                conditions += [cp.norm(cp.vec(W[:, sent], order="F")) <= scale * np.sqrt(transmitter[t])]
        if total is not None:
            conditions += [cp.norm(W, "fro") <= scale * np.sqrt(total)]
        self.program = cp.Problem(cp.Minimize(self.excess if peak else cp.norm(W, "fro")), conditions)

    def __call__(self, H, noise, targets):
        """Total watts (or the largest power over its limit), infinite where the targets cannot be met."""
        for parameter, channel in zip(self.channel, H, strict=True):
            parameter.value = channel / np.sqrt(noise)[:, None]
        for k, own in enumerate(self.own):
            own.value = H[self.serving[k]][k] / np.sqrt(noise[k] * targets[k])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CVXPY warns when the tolerance is not reached
            try:
                self.program.solve(solver=cp.CLARABEL, **TIGHT)
            except cp.SolverError:  # at the boundary of feasibility
                return np.inf
        return np.inf if self.program.value is None else float(self.program.value) ** 2


def max_min(peak, H, noise, shape, low, high, steps=40):
    """Largest level at which the SINRs ``shape(level)`` can be reached within the limits, by bisection."""
    for _ in range(steps):
        middle = (low + high) / 2
        if peak(H, noise, shape(middle)) <= 1:
            low = middle
        else:
            high = middle
    return low


def perron_root(matrix):
    """Spectral radius."""
    return np.abs(np.linalg.eigvals(matrix)).max()


def sinr(H, W, noise, serving):
    """SINRs [K] by definition; H [T, K, N], W [N, K]."""
    K = len(noise)
    found = []
    for k in range(K):
        power = [abs(H[serving[j], k] @ W[:, j]) ** 2 for j in range(K)]
        found.append(power[k] / (sum(power[j] for j in range(K) if j != k) + noise[k]))
    return np.array(found)


def least_power_with_sensing(H, C, sinr, level):
    """Least power for SINRs [K] of users H [K, N] (noise one) and levels [M] of targets C [M, N], as a semidefinite
    program in covariances of any rank.
    """
    N = H.shape[-1]
    each, S = [cp.Variable((N, N), hermitian=True) for _ in H], cp.Variable((N, N), hermitian=True)
    limits = [W >> 0 for W in each] + [S - sum(each) >> 0]
    for h, W, one in zip(H, each, sinr, strict=True):
        limits.append(cp.real(h @ W @ h.conj()) * (1 + 1 / one) >= cp.real(h @ S @ h.conj()) + 1)
    limits += [cp.real(c.conj() @ S @ c) >= one for c, one in zip(C, level, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cp.Problem(cp.Minimize(cp.real(cp.trace(S))), limits).solve(solver="CLARABEL")
