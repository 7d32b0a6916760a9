"""`compile`: a method as a function of one channel, for loops over single channels and for short deadlines."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beamforge.api import solve
from beamforge.compiled import linear
from beamforge.compiled.lapack import Array
from beamforge.compiled.multipliers import OneChannel
from beamforge.core.errors import ConfigError, ShapeError, unknown
from beamforge.core.settings import convert
from beamforge.io.weights import trained_weights
from beamforge.learned.multipliers.sum_rate import LEARNED_STEPS
from beamforge.learned.multipliers.trained_range import TrainedRange

Kernel = Callable[[Array, Array, float], Array | None]
"""Beams [N, K] from channels [K, N] in units of the noise, weights [K] of the rates, and the power."""


def compile(
    method: str = "multipliers",
    *,
    noise: float | Array | Tensor,
    p_max: float,
    weights: Array | Tensor | None = None,
    **settings: Any,
) -> CompiledMethod:
    """A method for the sum rate of one transmitter, prepared once, as a function of one channel.

    The function maps complex channels H [K, N], NumPy or torch on the CPU, in single or double precision, to beams W
    [N, K] of the same kind, equal to those of `beamforge.solve` up to rounding. It calls NumPy and LAPACK only, so a
    call takes a small part of the time of `beamforge.solve`. K and N may change from call to call. It has no batches
    and no gradients. Threads may share it.

    method    "multipliers", "rzf", "slnr" (the same as rzf) or "mrt".
    noise     noise power in watts, one number or one for each user.
    p_max     total power in watts.
    weights   weights of the rates [K], by default 1.
    settings  settings of the method: `steps` and `checkpoint` of multipliers.

    Raises `ConfigError` for another method or setting, with the names of those that there are.

    >>> beams = compile("multipliers", noise=0.1, p_max=1.0)
    >>> rng = np.random.default_rng(0)
    >>> for _ in range(3):
    ...     W = beams(rng.standard_normal((4, 6)) + 1j * rng.standard_normal((4, 6)))
    >>> W.shape, round(float(np.vdot(W, W).real), 6)
    ((6, 4), 1.0)
    """
    if method not in KERNELS:
        raise ConfigError(unknown("compiled method", method, KERNELS))
    p_max = float(p_max)
    if not 0 < p_max < math.inf:
        raise ConfigError(f"p_max must be finite and positive, got {p_max:g}")
    level, priority = vector("noise", noise), None if weights is None else vector("weights", weights)
    if not (np.isfinite(level).all() and (level > 0).all()):
        raise ConfigError(f"noise must be finite and positive, got {level.tolist()}")
    if priority is not None and not (np.isfinite(priority).all() and (priority >= 0).all() and priority.any()):
        raise ConfigError(f"weights must be finite, not negative and not all 0, got {priority.tolist()}")
    return CompiledMethod(method, KERNELS[method](**checked(method, settings)), level, p_max, priority, settings)


class CompiledMethod:
    """The function that `compile` returns."""

    def __init__(
        self,
        method: str,
        kernels: Callable[[np.dtype[Any]], Kernel],
        noise: Array,
        p_max: float,
        weights: Array | None,
        settings: dict[str, Any],
    ) -> None:
        self.method, self.noise, self.p_max, self.weights, self.settings = method, noise, p_max, weights, settings
        self.kernels = {np.dtype(kind): kernels(np.dtype(kind)) for kind in (np.complex64, np.complex128)}

    def __call__(self, H: Any) -> Any:
        """Beams W [N, K] for channels H [K, N]; raises `ShapeError` for anything but a finite complex matrix."""
        array: Array = H.detach().resolve_conj().numpy() if isinstance(H, Tensor) else np.asarray(H)
        kernel = self.kernels.get(array.dtype)
        if kernel is None or array.ndim != 2 or 0 in array.shape:
            raise ShapeError(f"H must be a complex matrix [K, N], got {array.dtype} {list(array.shape)}")
        K, kind = len(array), array.real.dtype
        for name, value in (("noise", self.noise), ("weights", self.weights)):
            if value is not None and len(value) not in (1, K):
                raise ShapeError(f"H must have as many users as {name}, {len(value)}, got {K}")
        scale = (1 / np.sqrt(self.noise)).astype(kind)
        weights = np.ones(K, kind) if self.weights is None else np.resize(self.weights.astype(kind), K)
        W = kernel(array * scale[:, None], weights, self.p_max)
        if W is None:  # outside the trained range
            W = self.by_solve(array)
        if not np.isfinite(np.vdot(W, W)):
            raise ShapeError("H must be finite, and small enough for its precision")
        return torch.from_numpy(W) if isinstance(H, Tensor) else W

    def by_solve(self, H: Array) -> Array:
        """The beams of `beamforge.solve`."""
        noise: Any = self.noise if len(self.noise) > 1 else float(self.noise[0])
        weights: Any = self.weights
        found = solve(H, noise=noise, p_max=self.p_max, weights=weights, method=self.method, **self.settings)
        W: Any = found.W
        return np.asarray(W)


def multipliers(steps: int = 3, checkpoint: str = "shipped") -> Callable[[np.dtype[Any]], Kernel]:
    """Kernels of `SumRateMultipliers`."""
    if not 0 <= steps <= LEARNED_STEPS:
        raise ConfigError(f"steps of a compiled method must be 0 to {LEARNED_STEPS}, got {steps}")
    trained = trained_weights("multipliers", checkpoint)
    known = None if trained is None else TrainedRange.of(trained.header)
    if trained is None or known is None:
        raise ConfigError(f"checkpoint must be trained weights that state their range, got {checkpoint!r}")
    tensors = {name: value.double().numpy() for name, value in trained.tensors.items()}

    def kernel(kind: np.dtype[Any]) -> Kernel:
        real = np.empty(0, kind).real.dtype
        return OneChannel({name: value.astype(real) for name, value in tensors.items()}, known, steps)

    return kernel


def closed_form(function: Callable[[Array, float], Array]) -> Callable[[np.dtype[Any]], Kernel]:
    """Kernels of a closed form, the same in every precision."""
    return lambda kind: lambda H, weights, power: function(H, power)


KERNELS: dict[str, Callable[..., Callable[[np.dtype[Any]], Kernel]]] = {
    "multipliers": multipliers,
    "rzf": partial(closed_form, linear.rzf),
    "slnr": partial(closed_form, linear.rzf),
    "mrt": partial(closed_form, linear.mrt),
}
"""Kernels of every compiled method, from its settings and then the type of the channels."""


def checked(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings converted to their types; raises `ConfigError` for an unknown one."""
    kinds = {"steps": int, "checkpoint": str} if method == "multipliers" else {}
    for name in settings:
        if name not in kinds:
            raise ConfigError(unknown(f"setting of compiled {method}", name, kinds))
    return {name: convert(name, value, kinds[name]) for name, value in settings.items()}


def vector(name: str, value: Any) -> Array:
    """One number or one for each user, as a vector in double precision."""
    found = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if found.ndim != 1:
        raise ShapeError(f"{name} must be one number or one for each user, got shape {list(found.shape)}")
    return found
