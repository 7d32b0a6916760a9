"""Time of one channel, by `beamforge.compile` and `beamforge.solve`, against LAPACK and NumPy. One command:

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/single_channel.py [--repeats 30]

The measure of `multipliers` with three steps is the time of seven inverses of a K x K matrix by LAPACK's Cholesky
routines, called one after another; that of `rzf` is the formula in four lines of NumPy. All run in turns in one
process on one thread, in complex64. A time is processor time, the median over repeats of the mean of 10 calls on
different channels, so that other processes on the machine count little; ratios are those of the medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from scipy.linalg import get_lapack_funcs

import beamforge
from beamforge.bench.timing import Machine, one_thread

CALLS = 10

NOISE = 0.01
"""Noise power in watts at a total power of one: 20 dB."""

Array = np.ndarray[Any, Any]


def channels(users: int, antennas: int) -> list[Array]:
    """Different Rayleigh channels."""
    rng = np.random.default_rng(users)
    parts = rng.standard_normal((2, CALLS, users, antennas)) / np.sqrt(2)
    return list((parts[0] + 1j * parts[1]).astype(np.complex64))


def seven_inverses(H: Array) -> None:
    """Seven inverses of ``H H^H + K s2 I`` by potrf and potri."""
    gram = H @ H.conj().T
    gram.flat[:: len(gram) + 1] += len(gram) * NOISE
    loaded = np.asfortranarray(gram)
    factorise, invert = get_lapack_funcs(("potrf", "potri"), (loaded,))
    for _ in range(7):
        invert(factorise(loaded, clean=False)[0], overwrite_c=True)


def numpy_rzf(H: Array) -> Array:
    """Regularised zero forcing with equal powers, as one would write it in NumPy."""
    gram = H @ H.conj().T
    gram.flat[:: len(gram) + 1] += len(gram) * NOISE
    W = H.conj().T @ np.linalg.inv(gram)
    beams: Array = W / (np.linalg.norm(W, axis=0) * np.sqrt(len(gram)))
    return beams


def seconds(tasks: dict[str, Callable[[Array], object]], users: int, antennas: int, repeats: int) -> dict[str, float]:
    """Seconds of processor time of one call of each task."""
    drawn = channels(users, antennas)

    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            begun = time.process_time()
            for H in drawn:
                task(H)
            if turn:  # the first is a warm-up
                taken[name].append((time.process_time() - begun) / len(drawn))
    return {name: median(values) for name, values in taken.items()}


def table(method: str, floor: Callable[[Array], object], sizes: list[tuple[int, int]], repeats: int) -> None:
    """One row for each size."""
    stated = {"noise": NOISE, "p_max": 1.0}
    tasks = {
        "compiled": beamforge.compile(method, **stated),
        "solve": lambda H: beamforge.solve(H, method=method, **stated),
        floor.__name__: floor,
    }
    print(f"\n{method} (ms)")
    print("   K    N", *(f"{name:>15}" for name in tasks), "  compiled over the last  solve over compiled")
    for users, antennas in sizes:
        taken = seconds(tasks, users, antennas, repeats)
        ours, eager, least = taken.values()
        times = (f"{1e3 * value:15.3f}" for value in taken.values())
        print(f"{users:4d} {antennas:4d}", *times, f"{ours / least:24.1f} {eager / ours:20.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    print(Machine.here())
    table("multipliers", seven_inverses, [(16, 16), (16, 64), (40, 40), (64, 64)], repeats)
    table("rzf", numpy_rzf, [(16, 16), (64, 64), (16, 1024)], repeats)


if __name__ == "__main__":
    with one_thread():
        main()
