"""Least power against a cone program: time per instance and difference of the powers. One command:

    OMP_NUM_THREADS=1 python benchmarks/min_power.py [--users 8] [--antennas 16] [--batch 100] [--repeats 5]

The reference is the second-order cone program in CVXPY and Clarabel in its fastest form: modelled once with parameters
(DPP), compiled once, and solved again for every channel. Both run in one process with one thread, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import cvxpy as cp
import numpy as np
import torch

from beamforge import Network, Problem
from beamforge.classical.duality.min_power import Duality
from beamforge.core.constraints import SinrAtLeast
from beamforge.core.utilities import TransmitPower


class ConeProgram:
    """Minimise ``|W|_F`` subject to ``h_k^H w_k / sqrt(target) >= |(h_k^H w_j, j != k; 1)|``, in real numbers."""

    def __init__(self, K: int, N: int) -> None:
        self.real, self.imag = cp.Parameter((K, N)), cp.Parameter((K, N))
        self.own_real, self.own_imag = cp.Parameter((K, N)), cp.Parameter((K, N))
        self.W = cp.Variable((2 * N, K))
        upper, lower = self.W[:N], self.W[N:]
        heard_real = self.real @ upper - self.imag @ lower
        heard_imag = self.imag @ upper + self.real @ lower
        conditions = []
        for k in range(K):
            signal = self.own_real[k] @ upper[:, k] - self.own_imag[k] @ lower[:, k]
            others = [j for j in range(K) if j != k]
            parts = [np.ones(1)] + ([heard_real[k, others], heard_imag[k, others]] if others else [])
            conditions.append(signal >= cp.norm(cp.hstack(parts)))
            conditions.append(self.own_imag[k] @ upper[:, k] + self.own_real[k] @ lower[:, k] == 0)
        self.program = cp.Problem(cp.Minimize(cp.norm(self.W, "fro")), conditions)

    def __call__(self, H: np.ndarray, target: float) -> float:
        """Least power for H [K, N] with noise one."""
        self.real.value, self.imag.value = H.real, H.imag
        own = H / np.sqrt(target)
        self.own_real.value, self.own_imag.value = own.real, own.imag
        return float(self.program.solve(solver=cp.CLARABEL)) ** 2


def timed(work) -> tuple[float, object]:  # type: ignore[no-untyped-def]
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--antennas", type=int, default=16)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--sinr-target-db", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)

    shape = (options.batch, options.users, options.antennas)
    H = torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    target = 10 ** (options.sinr_target_db / 10)
    network, solver = Network.broadcast(H, 1.0), Duality()
    problem = Problem(TransmitPower(), (SinrAtLeast(target),))
    reference, channels = ConeProgram(options.users, options.antennas), H.numpy()
    reference(channels[0], target)  # compiles the model
    solver.solve(problem, network)

    ours, theirs = [], []
    for _ in range(options.repeats):
        seconds, expected = timed(lambda: [reference(channel, target) for channel in channels])
        theirs.append(seconds / options.batch)
        seconds, solution = timed(lambda: solver.solve(problem, network))
        ours.append(seconds / options.batch)
    power = network.transmit_power(solution.W).sum(-1).numpy()
    one, other = statistics.median(ours), statistics.median(theirs)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    print(f"{options.users} users, {options.antennas} antennas, {options.sinr_target_db:g} dB, batch {options.batch}")
    print(f"cone program (CVXPY {cp.__version__}, Clarabel)   {other * 1e3:8.3f} ms an instance")
    print(
        f"duality                                  {one * 1e3:8.3f} ms an instance, {solution.iterations.max()} steps"
    )
    print(f"ratio {other / one:.0f} (median; {min(ratios):.0f} to {max(ratios):.0f} over {options.repeats} repeats)")
    print(f"greatest relative difference of power     {np.abs(power / np.array(expected) - 1).max():.1e}")


if __name__ == "__main__":
    main()
