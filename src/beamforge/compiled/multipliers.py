"""Learned multipliers for one channel, as `learned.multipliers.sum_rate` computes them in its trained range.

With roots r and gains g, the coefficients of the beams are ``X = diag(r) A diag(g)`` with ``A = M^-1`` and
``M = diag(r) H H^H diag(r) + diag(l)``. Then ``H H^H X = diag(1/r) (I - diag(l) A) diag(g)``, so received powers and
the power spent follow from the squared magnitudes of A, and no product of matrices is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from beamforge.compiled.graph_filter import GraphFilter, graph_filter
from beamforge.compiled.lapack import Array, loaded_inverse, squared_magnitude
from beamforge.learned.multipliers import features, learned_step
from beamforge.learned.multipliers.features import RIDGE_FACTOR, ROUNDING_MARGIN
from beamforge.learned.multipliers.learned_step import OFF_SHARE
from beamforge.learned.multipliers.sum_rate import LIMIT
from beamforge.learned.multipliers.trained_range import TrainedRange

SMALL = 1e-4
"""Root, as a share of the 2-norm of all, below which received powers are computed from the beams."""


class Whitened(NamedTuple):
    """Channels in units of noise over power.

    H, gram     [K, N] and its Gram matrix.
    weights     [K] of the rates.
    preference  [K], weights divided by their mean, at least 1e-4; `wanted` is its logarithm.
    """

    H: Array
    gram: Array
    weights: Array
    preference: Array
    wanted: Array

    @classmethod
    def of(cls, H: Array, weights: Array) -> Whitened:
        """The data of one channel."""
        mean = max(float(np.add.reduce(weights)) / len(weights), float(np.finfo(weights.dtype).tiny))
        preference = np.maximum(weights / mean, 1e-4)
        return cls(H, H @ H.conj().T, weights, preference, np.log(preference))


class UserNumbers(NamedTuple):
    """``root_k = sqrt(a_k w_k) |u_k|`` and ``gain_k = sqrt(a_k w_k)`` [K]."""

    root: Array
    gain: Array


class Seen(NamedTuple):
    """Features [K, 10], shifts [3, K, K], and the rate that the beams must reach."""

    nodes: Array
    shifts: Array
    floor: float


class Evaluated(NamedTuple):
    """A state, its inverse A, the weighted sum rate, and the state after a plain WMMSE step.

    signal, leaks  received powers [K] of the own beams and [K, K] of the others, with zeros on the diagonal.
    """

    state: UserNumbers
    inverse: Array
    signal: Array
    leaks: Array
    rate: float
    image: UserNumbers

    @property
    def coefficients(self) -> Array:
        """X [K, K] of the beams ``H^H X``, up to a common scale."""
        return self.inverse * (self.state.root[:, None] * self.state.gain)


class OneChannel:
    """The networks and the formulas of `SumRateMultipliers` for one channel.

    tensors  weights of the networks by name, in the precision of the channels.
    trained  the range outside which there is no answer.
    steps    learned steps, at most 5.
    """

    def __init__(self, tensors: Mapping[str, Array], trained: TrainedRange, steps: int) -> None:
        self.trained, self.steps = trained, steps
        self.filter: GraphFilter = graph_filter(tensors, "filter.")
        self.stride: GraphFilter = graph_filter(tensors, "stride.")

    def __call__(self, H: Array, weights: Array, power: float) -> Array | None:
        """Beams [N, K] for channels [K, N] in units of the noise; None outside the trained range."""
        data = Whitened.of(H * math.sqrt(power), weights)
        middle, width = self.trained.mean_log_gain(*H.shape)
        gain = data.gram.diagonal().real
        if width < 0 or not gain.min() > 0 or abs(float(np.log(gain).mean()) - middle) > width:
            return None
        W: Array = data.H.conj().T @ self.best(data).coefficients
        spent = float(np.vdot(W, W).real)
        W *= math.sqrt(power / spent) if spent > 0 else 1
        return W

    def best(self, data: Whitened) -> Evaluated:
        """The better of the learned beams after all steps and, where the prediction is poor, of plain steps."""
        seen = observe(data)
        corrections = np.minimum(np.maximum(self.filter(seen.nodes, seen.shifts), -LIMIT), LIMIT)
        even = np.where(data.weights > 0, np.sqrt(data.preference), 0)
        root, gain = even * np.exp(corrections[:, :2]).T
        ridge = RIDGE_FACTOR * math.exp(float(np.add.reduce(corrections[:, 2])) / len(root))
        there = evaluate(data, UserNumbers(root, gain), ridge)
        rate, sure = there.rate, there.rate >= seen.floor
        for _ in range(self.steps):
            new = evaluate(data, self.step(data, seen, there))
            there = new if new.rate >= there.rate else evaluate(data, there.image)
            rate = max(rate, there.rate)
        if sure:
            return there
        safe = accelerated_steps(data, zero_forcing(data), self.steps)
        return there if rate >= safe.rate else safe

    def step(self, data: Whitened, seen: Seen, there: Evaluated) -> UserNumbers:
        """The state after a learned step."""
        signal, leaks, before, image = there.signal, there.leaks, there.state, there.image
        limit, tiny = learned_step.LIMIT, np.finfo(signal.dtype).tiny ** 0.5
        from_root, to_root = normalised(before.root), normalised(image.root)
        change = np.empty((2, len(signal)), signal.dtype)
        np.divide(to_root, from_root, out=change[0])
        np.divide(image.gain + tiny, before.gain + tiny, out=change[1])
        np.log(change, out=change)
        np.minimum(np.maximum(change, -limit, out=change), limit, out=change)
        length = math.sqrt(float(np.vdot(change, change)) / len(signal) + 1e-12)
        shifts = seen.shifts  # the last two are those of the filter only until the first step
        np.divide(leaks, (np.add.reduce(leaks, -1) + signal + 1)[:, None], out=shifts[1])
        np.divide(leaks.T, (np.add.reduce(leaks, 0) + signal + 1)[:, None], out=shifts[2])
        rooted = np.log(to_root)
        usual = math.sqrt(max(float(np.add.reduce(data.weights)) / len(signal), tiny))
        nodes = np.empty((len(signal), learned_step.FEATURES), signal.dtype)
        nodes[:, :2] = (change / length).T
        nodes[:, 2] = np.log(np.maximum(image.gain / usual, tiny)) - data.wanted / 2
        nodes[:, 3] = rooted - np.add.reduce(rooted) / len(signal)
        nodes[:, 4] = math.log(length) / 3
        nodes[:, 5] = seen.nodes[:, 0]
        nodes[:, 6] = np.add.reduce(shifts[1], -1)
        nodes[:, 7] = data.wanted
        out = self.stride(nodes, shifts).T
        grown = (1 + out[:2]) * change + out[2:] * length
        np.exp(np.minimum(np.maximum(grown, -limit, out=grown), limit, out=grown), out=grown)
        return UserNumbers(np.where(to_root > OFF_SHARE, from_root * grown[0], 0), before.gain * grown[1])


def observe(data: Whitened) -> Seen:
    """Inputs of the filter; see `learned.multipliers.features.observe`."""
    K, gain = len(data.gram), data.gram.diagonal().real
    eps, tiny = np.finfo(gain.dtype).eps, np.finfo(gain.dtype).tiny ** 0.5
    level = K + 4 * eps * gain
    inverse = loaded_inverse(data.gram.copy(), level)
    kept, far = inverse.diagonal().real, squared_magnitude(inverse)
    far.reshape(-1)[:: K + 1] = 0
    scale = 1 / np.where(gain > 0, gain, np.inf)
    across = squared_magnitude(data.gram)
    across *= scale[:, None]
    across.reshape(-1)[:: K + 1] = 0
    shifts = np.empty((features.SHIFTS, K, K), gain.dtype)
    np.multiply(across, scale, out=shifts[0])
    np.divide(far, kept[:, None] * kept, out=shifts[1])
    np.divide(across, (gain + RIDGE_FACTOR * K)[:, None], out=shifts[2])
    left = np.minimum(np.maximum(level * kept, tiny), 1)
    spent = kept * (1 - left) - level @ far
    share = 1 / np.where(spent > 0, K * spent, np.inf)
    forced, rate = receivers(data.weights, (1 - left) ** 2 * share, level * level * (far @ share))
    lost = float(np.maximum.reduce(gain)) / K + float(np.maximum.reduce(kept / np.where(spent > 0, spent, 0)))
    logs = np.log(np.maximum([gain, (1 - left) / left, forced.gain, forced.root], tiny))
    nodes = np.empty((K, features.FEATURES), gain.dtype)
    nodes[:, 0] = logs[0] / 5
    nodes[:, 1] = nodes[:, 0] - math.log(K) / 5
    nodes[:, 2] = np.add.reduce(shifts[0], -1)
    nodes[:, 3] = np.add.reduce(shifts[0] * shifts[0], -1)
    nodes[:, 4] = np.add.reduce(shifts[1], -1)
    nodes[:, 5] = left
    nodes[:, 6] = logs[1] / 3
    nodes[:, 7] = data.wanted
    nodes[:, 8:] = logs[2:].T
    return Seen(nodes, shifts, float((1 + ROUNDING_MARGIN * eps * lost) * rate))


def evaluate(data: Whitened, state: UserNumbers, ridge: float = 1.0) -> Evaluated:
    """The beams of a state, their rate and the state after a plain step of reduced WMMSE."""
    root, gain = state
    square = root * root
    total = float(np.add.reduce(square))
    scaled = data.gram * (root[:, None] * root)
    level = 4 * np.finfo(root.dtype).eps * scaled.diagonal().real + ridge * total
    if not total > 0:
        level = np.where(level > 0, level, 1).astype(root.dtype)
    inverse = loaded_inverse(scaled, level)
    leaks, kept, shown = squared_magnitude(inverse), inverse.diagonal().real, gain * gain
    leaks.reshape(-1)[:: len(root) + 1] = 0
    missing = 1 - level * kept
    spent = float(np.dot(shown, kept * missing - level @ leaks))
    share = 1 / spent if spent > 0 else 1.0
    known = root > SMALL * math.sqrt(total)
    seldom = not known.all()
    inverted = share / (np.where(known, square, 1) if seldom else square)
    signal = missing * missing * shown * inverted
    leaks *= (level * level * inverted)[:, None]
    leaks *= shown
    if seldom:
        rows = ~known
        leaks[rows] = squared_magnitude((data.gram[rows] * root) @ inverse) * (share * shown)
        signal[rows] = leaks.diagonal()[rows]
        leaks.reshape(-1)[:: len(root) + 1] = 0
    image, rate = receivers(data.weights, signal, np.add.reduce(leaks, -1))
    return Evaluated(state, inverse, signal, leaks, rate, image)


def zero_forcing(data: Whitened) -> UserNumbers:
    """The state after one step from regularised zero forcing with equal powers."""
    K = len(data.gram)
    gain: Array = data.gram.diagonal().real
    level = K + 4 * np.finfo(gain.dtype).eps * gain
    X = loaded_inverse(data.gram.copy(), level)
    D = data.gram @ X
    norm: Array = np.add.reduce(X.real * D.real + X.imag * D.imag, 0)
    norm[:] = np.where(norm > 0, norm, np.add.reduce(squared_magnitude(X), 0))
    heard = (gain > 0) & (norm > 0)
    leaks = squared_magnitude(D) * np.where(heard, 1 / (K * np.where(heard, norm, 1)), 0)
    signal = leaks.diagonal().copy()
    leaks.reshape(-1)[:: K + 1] = 0
    return receivers(data.weights, signal, np.add.reduce(leaks, -1))[0]


def accelerated_steps(data: Whitened, state: UserNumbers, steps: int) -> Evaluated:
    """The state after `steps` plain steps, extrapolated by SQUAREM from three steps on, as `optim.iterate` does."""
    previous: tuple[Array, Array] | None = None
    best, fallback = -math.inf, state
    for _ in range(steps):
        there = evaluate(data, state)
        x, fx = np.concatenate(state), np.concatenate(there.image)
        if not there.rate >= best - 8 * np.finfo(x.dtype).eps * abs(best):
            state, previous = fallback, None
            continue
        best, state, fallback = there.rate, there.image, there.image
        if previous is not None and steps > 2:
            r, v = previous[1] - previous[0], fx - x - (previous[1] - previous[0])
            ratio = float(np.vdot(r, r)) / max(float(np.vdot(v, v)), float(np.finfo(x.dtype).tiny))
            length = -math.sqrt(min(max(ratio, 1.0), 1e12))
            leap = previous[0] - 2 * length * r + length**2 * v
            state = UserNumbers(leap[: len(r) // 2], leap[len(r) // 2 :])
        previous = (x, fx) if previous is None else None
    return evaluate(data, fallback)


def receivers(weights: Array, signal: Array, interference: Array) -> tuple[UserNumbers, float]:
    """Receivers and weights for received powers [K] in units of the noise, and the weighted sum rate."""
    disturbance = interference + 1
    total = disturbance + signal
    ratio = total / disturbance
    gain = np.sqrt(weights * ratio)
    rate = float(np.dot(weights, np.log1p(signal / disturbance))) / math.log(2)
    return UserNumbers(gain * np.sqrt(signal) / total, gain), rate


def normalised(root: Array) -> Array:
    """Roots divided by their 2-norm, and bounded away from zero."""
    norm = math.sqrt(float(np.dot(root, root)))
    found: Array = np.maximum(root / (norm if norm > 0 else 1), OFF_SHARE)
    return found
