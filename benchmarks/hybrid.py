"""Hybrid beams with perfect channel knowledge: speed of the codeword sweep, and power against the optimum.

    OMP_NUM_THREADS=1 python benchmarks/hybrid.py [speed] [power] [exhaustive] [margins] [--count 100]

speed       processor time of `greedy-hybrid` on a batch (K = 4, M = 5, 64 codewords, 10 selections), and of the same
            method with the plain fixed point in NumPy, side by side on one thread: all 64 candidates of an instance
            together (on 10 instances), and every candidate on its own (on 2).
power       median radiated power in dB after 1, 5, 10 and 20 selections, and of full digital beams; and how many
            instances of the scenario cannot be served within 20 dB.
exhaustive  power of `greedy-hybrid` over that of `exhaustive-hybrid` for small codebooks.
margins     margins in dB for `hybrid-margin`, bisected on validation instances, as the table in its module.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from beamforge.bench.statistics import percent_of_mean
from beamforge.bench.timing import Machine, one_thread
from beamforge.classical.duality.min_power import Duality
from beamforge.classical.hybrid.exhaustive import ExhaustiveHybrid
from beamforge.classical.hybrid.greedy import GreedyHybrid
from beamforge.classical.hybrid.margin import OUTAGES, PILOTS_DB, HybridMargin, bisected_margin, mean_outage
from beamforge.core.constraints import SinrAtLeast
from beamforge.core.hybrid import dft_codebook
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.core.utilities import TransmitPower
from beamforge.scenarios import HybridOutage
from beamforge.scenarios.base import TEST_SEEDS, VALIDATION_SEEDS

SEED = TEST_SEEDS[17]
CODEBOOK = dft_codebook(8, 4, oversampling=(2, 1))


def perfect(scenario: HybridOutage, count: int, seed: int = SEED) -> tuple[Problem, Instance]:
    """Instances with perfect channel knowledge, and their problem."""
    sampled = scenario.sample(count, seed=seed, dtype=torch.complex128)
    known = {name: sampled.context[name] for name in ("sinr_target", "codebook", "p_max")}
    return build_problem("hybrid-min-power", known), Instance.perfect(sampled.truth)


def uplink(h: np.ndarray, D: np.ndarray, targets: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """Least powers [n] by the plain fixed point, all n problems together: h [n, K, M], D [n, M, M], targets [K].

    One matrix serves all users: ``h_k^H Q_k^-1 h_k = s_k / (1 - q_k s_k)`` with ``s_k = h_k^H (Q_k + q_k h_k h_k^H)^-1
    h_k``.
    """
    q = np.zeros(h.shape[:2])
    running = np.arange(len(h))
    for _ in range(200):
        part, now = h[running], q[running]
        columns = part.swapaxes(1, 2)
        Q = D[running] + (columns * now[:, None]) @ part.conj()
        s = (part.conj() * np.linalg.solve(Q, columns).swapaxes(1, 2)).sum(-1).real
        after = targets * (1 - now * s) / s
        moved = np.abs(after - q[running]).max(1) / after.max(1)
        q[running] = after
        running = running[(moved > tolerance) & (after.sum(1) < 1e6)]
        if not len(running):
            break
    cost = q.sum(1)
    cost[running] = np.inf
    return np.where(cost < 1e6, cost, np.inf)


def plain_greedy(H: np.ndarray, targets: np.ndarray, start: list[int], selections: int, *, together: bool) -> float:
    """The least power of an instance by the greedy method with the plain fixed point."""
    book, index, cost = CODEBOOK.numpy(), list(start), np.inf
    for selection in range(selections):
        m = selection % len(index)
        trials = [[*index[:m], c, *index[m + 1 :]] for c in range(64) if c not in index[:m] + index[m + 1 :]]
        A = book[:, trials].transpose(1, 0, 2)
        h, D = (H @ A).conj(), A.conj().swapaxes(1, 2) @ A
        each = range(len(trials))
        found = uplink(h, D, targets) if together else np.array([uplink(h[[i]], D[[i]], targets)[0] for i in each])
        if found.min() < cost:
            cost, index = found.min(), trials[int(found.argmin())]
    return float(cost)


def speed(count: int) -> None:
    problem, instance = perfect(HybridOutage(), count)
    H, targets = instance.truth.channel.numpy(), problem.get(SinrAtLeast).target.numpy()
    solver = GreedyHybrid(rf_chains=5, selections=10)
    ours, repeats = np.inf, 4
    for _ in range(repeats):
        begun = time.process_time()
        found = solver.solve(problem, instance)
        ours = min(ours, (time.process_time() - begun) / count)
    heard = np.abs(H @ CODEBOOK.numpy()) ** 2 / (np.abs(H) ** 2).sum(-1, keepdims=True)
    order = np.argsort(-heard.sum(1), axis=1, kind="stable")
    starts = [independent(row.tolist()) for row in order]
    print(f"{count} instances of 4 users, 5 RF chains, 64 codewords, 10 selections")
    print("                                        ms an instance and selection   times as fast   power, ours over it")
    print(f"greedy-hybrid                           {100 * ours:28.3f}")
    for name, most, together in (
        ("plain, 64 candidates together", 10, True),
        ("plain, each on its own", 2, False),
    ):
        some = min(most, count)
        begun = time.process_time()
        cost = [plain_greedy(H[b], targets[b], starts[b], 10, together=together) for b in range(some)]
        each = (time.process_time() - begun) / some
        ratio = (found.trace[:some, -1].numpy() / np.array(cost)).mean()
        print(f"{name:39s} {100 * each:28.3f} {each / ours:15.1f} {ratio:21.6f}")


def independent(order: list[int], chains: int = 5) -> list[int]:
    """The first linearly independent codewords in this order."""
    chosen: list[int] = []
    for c in order:
        if len(chosen) < chains and np.linalg.matrix_rank(CODEBOOK[:, [*chosen, c]].numpy(), tol=1e-6) > len(chosen):
            chosen.append(c)
    return chosen


def power(count: int) -> None:
    problem, instance = perfect(HybridOutage(), count)
    found = GreedyHybrid(selections=20).solve(problem, instance)
    digital = Duality().solve(Problem(TransmitPower(), (problem.get(SinrAtLeast),)), instance)
    sent = (digital.W.abs() ** 2).sum((-2, -1))
    print(f"median power, dB, of {count} instances of 4 users")
    for selections in (1, 5, 10, 20):
        print(f"{selections:3d} selections {10 * found.trace[:, selections].log10().median().item():7.2f}")
    print(f"full digital   {10 * sent.log10().median().item():7.2f}")
    print(f"{int((~found.solved).sum())} of {count} instances need more than 20 dB")


def exhaustive(count: int) -> None:
    print("antennas  codewords  users  chains   mean power, % of the optimum        optimal   largest, %")
    for columns, rows, users, chains in ((4, 2, 2, 2), (4, 2, 2, 3), (4, 2, 3, 3), (4, 2, 3, 4), (4, 3, 4, 4)):
        problem, instance = perfect(HybridOutage(users, columns, rows), count)
        best = ExhaustiveHybrid(chains).solve(problem, instance)
        found = GreedyHybrid(chains).solve(problem, instance)
        both = best.solved & found.solved
        ours, least = (s.trace[both, -1].numpy() for s in (found, best))
        percent = percent_of_mean(ours, least)
        print(
            f"{columns * rows:8d} {2 * columns * rows:10d} {users:6d} {chains:7d}"
            f" {percent.value:20.2f} ± {percent.half:.2f}"
            f" {100 * (ours < least * (1 + 1e-6)).mean():22.0f}% {100 * (ours / least).max():12.1f}",
            flush=True,
        )


def margins(count: int) -> None:
    print(f"margins in dB, {count} validation instances; outage reached on as many held-out ones, and mean power in dB")
    for outage in OUTAGES:
        for pilot in PILOTS_DB:
            scenario = HybridOutage(pilot_low_db=pilot, pilot_high_db=pilot)
            found = []
            for seed in (VALIDATION_SEEDS[17], SEED):
                sampled = scenario.sample(count, seed=seed, dtype=torch.complex128)
                problem = build_problem("hybrid-min-power", {**sampled.context, "outage": outage})
                found.append((problem, sampled))
            margin = bisected_margin(*found[0], HybridMargin())
            solver = HybridMargin(margin_db=margin)
            W = solver.solve(*found[1]).W
            sent = (W.abs() ** 2).sum((-2, -1)).mean()
            reached = mean_outage(*found[1], solver)
            print(f"{outage:5g} {pilot:5g} dB {margin:7.2f} {reached:8.3f} {10 * sent.log10():8.2f}", flush=True)


def main() -> None:
    parts = {"speed": speed, "power": power, "exhaustive": exhaustive, "margins": margins}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[])
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    print(Machine.here())
    for name in options.parts or ("speed", "power", "exhaustive"):
        parts[name](options.count)


if __name__ == "__main__":
    with one_thread(), torch.no_grad():
        main()
