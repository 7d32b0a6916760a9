"""Time of one channel, by `beamforge.compile` and `beamforge.solve`, against LAPACK and NumPy. One command:

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/single_channel.py [--repeats 30]

The measure of `multipliers` with three steps is the time of seven inverses of a K x K matrix by LAPACK's Cholesky
routines, called one after another; that of `rzf` is the formula in four lines of NumPy. All run in turns in one
process on one thread, in complex64; a time is the median over repeats of the mean of 10 calls on different channels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import get_lapack_funcs

import beamforge
from beamforge.bench.timing import Machine, interleaved, one_thread

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
    """Seconds of one call of each task."""
    drawn = channels(users, antennas)

    def repeated(task: Callable[[Array], object]) -> Callable[[int], None]:
        def run(_: int) -> None:
            for H in drawn:
                task(H)

        return run

    taken = interleaved({name: repeated(task) for name, task in tasks.items()}, repeats)
    return {name: value / CALLS for name, value in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    print(Machine.here())
    stated = {"noise": NOISE, "p_max": 1.0}
    beams, rzf = beamforge.compile("multipliers", **stated), beamforge.compile("rzf", **stated)
    print("\nmultipliers, 3 steps (ms)")
    print("   K    N   compiled      solve   7 inverses   compiled / inverses   solve / compiled")
    for users, antennas in ((16, 16), (16, 64), (40, 40), (64, 64)):
        tasks = {
            "compiled": beams,
            "solve": lambda H: beamforge.solve(H, method="multipliers", **stated),
            "inverses": seven_inverses,
        }
        taken = seconds(tasks, users, antennas, repeats)
        ours, eager, floor = (1e3 * taken[name] for name in tasks)
        print(
            f"{users:4d} {antennas:4d} {ours:10.3f} {eager:10.3f} {floor:12.3f} {ours / floor:20.1f} {eager / ours:18.1f}"
        )
    print("\nrzf (ms)")
    print("   K    N   compiled      solve        NumPy      compiled / NumPy   solve / compiled")
    for users, antennas in ((16, 16), (64, 64), (16, 1024)):
        tasks = {"compiled": rzf, "solve": lambda H: beamforge.solve(H, method="rzf", **stated), "numpy": numpy_rzf}
        taken = seconds(tasks, users, antennas, repeats)
        ours, eager, floor = (1e3 * taken[name] for name in tasks)
        print(
            f"{users:4d} {antennas:4d} {ours:10.3f} {eager:10.3f} {floor:12.3f} {ours / floor:20.1f} {eager / ours:18.1f}"
        )


if __name__ == "__main__":
    with one_thread():
        main()
