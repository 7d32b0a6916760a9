"""Rates and times of reduced WMMSE: one command prints all numbers and draws the growth of cost.

    OMP_NUM_THREADS=1 python benchmarks/sum_rate.py [--peers FOLDER] [--out FOLDER] [--quick]

--peers   a folder with johnston_n16k16.npz: published channels and the rates of a published learned optimiser on them.
--out     folder of the figures (default: benchmarks/results).
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from textbook import textbook_step

from beamforge import Network, Problem
from beamforge.bench.timing import Machine, interleaved
from beamforge.classical.sum_rate.reduced_wmmse import (
    HEAT,
    Multipliers,
    ReducedWMMSE,
    WhitenedChannel,
    annealed,
    from_ridge,
)
from beamforge.core.constraints import TotalPower
from beamforge.core.observation import Observation
from beamforge.core.utilities import SumRate

mpl.use("Agg")
import matplotlib.pyplot as plt

SEED = 0
RIDGES = (1.0, 10.0, 30.0, float("inf"))
ANNEALED = 0.0
NAMES = {
    1.0: "RZF",
    10.0: "RZF, 10 x ridge",
    30.0: "RZF, 30 x ridge",
    float("inf"): "MRT",
    ANNEALED: f"10 x ridge, annealed (its {len(HEAT)} steps counted)",
}
SHARE = 0.998


def channels(B: int, K: int, N: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(B, K, N, dtype=torch.complex64, generator=generator)


class Case:
    """One batch of channels with the data of both iterations; total power one."""

    def __init__(self, B: int, K: int, N: int, snr_db: float = 20.0) -> None:
        self.noise = 10 ** (-snr_db / 10)
        self.network = Network.broadcast(channels(B, K, N), self.noise)
        self.problem = Problem(SumRate(), (TotalPower(1.0),)).bind(self.network)
        self.solver = ReducedWMMSE()
        self.data = self.solver.prepare(self.problem, Observation(self.network))

    def rate(self, W: torch.Tensor) -> float:
        return self.network.rate(W).sum(-1).mean().item()

    def start(self, data: WhitenedChannel, start: float) -> Multipliers:
        return annealed(data, from_ridge(data, 10.0)) if start == ANNEALED else from_ridge(data, start)

    def beams(self, ridge: float) -> torch.Tensor:
        """The same start as beams, for `textbook_step`: ``H^H (H H^H + ridge K s2/P)^-1``, scaled to the power."""
        H = self.network.channel
        K = H.shape[-2]
        if ridge == float("inf"):
            W = H.mH
        else:
            gram = self.network.gram + ridge * K * self.noise * torch.eye(K, dtype=H.dtype)
            W = H.mH @ torch.linalg.solve(gram, torch.eye(K, dtype=H.dtype).expand_as(gram))
        return W / W.abs().square().sum((-2, -1), keepdim=True).sqrt()

    def textbook_step(self, W: torch.Tensor) -> torch.Tensor:
        return textbook_step(self.network.channel, self.noise, 1.0, W)

    def run(self, start: float, steps: int, acceleration: str) -> torch.Tensor:
        """Beams from channels after `steps` iterations, which include those of annealing."""
        steps = max(1, steps - len(HEAT)) if start == ANNEALED else steps
        solver = ReducedWMMSE(tolerance=0.0, max_iterations=steps, acceleration=acceleration)
        data = solver.prepare(self.problem, Observation(self.network))
        return solver.beams(data, solver.run(data, self.start(data, start)).state)

    def run_textbook(self, ridge: float, steps: int) -> torch.Tensor:
        W = self.beams(ridge)
        for _ in range(steps):
            W = self.textbook_step(W)
        return W


def published_rates(folder: Path) -> None:
    """Mean sum rate on published channels with several numbers of starts, and that of the published optimiser."""
    with np.load(folder / "johnston_n16k16.npz", allow_pickle=False) as file:
        H, levels, published = torch.as_tensor(file["H"]), file["snr_db"], file["published_rnn_sum_rate"]
    published = published.mean(int(np.argmax(np.array(published.shape) == len(H)))) if published.ndim > 1 else published
    print("\nPublished 16 x 16 channels: mean sum rate, bit/s/Hz")
    print(f"{'SNR':>6} {'published':>10} {'default':>9} {'5 starts':>9} {'20 starts':>9}")
    for level, theirs in zip(levels, published, strict=True):
        network = Network.broadcast(H, 10 ** (-float(level) / 10))
        problem = Problem(SumRate(), (TotalPower(1.0),))
        ours = [network.rate(ReducedWMMSE(starts=n).solve(problem, network).W).sum(-1).mean() for n in (3, 5, 20)]
        print(f"{level:>3.0f} dB {theirs:>10.2f} " + " ".join(f"{value:>9.3f}" for value in ours))


def iteration_cost(repeats: int) -> None:
    """Time of one iteration, of one batched solve of the same size, and of one textbook iteration."""
    case = Case(100, 40, 40)
    state, W = case.start(case.data, 30.0), case.beams(30.0)
    system = case.data.gram + torch.eye(40, dtype=torch.complex64)
    right = torch.randn(100, 40, 40, dtype=torch.complex64)
    seconds = interleaved(
        {
            "step": lambda _: case.solver.step(case.data, state),
            "solve": lambda _: torch.linalg.solve(system, right),
            "textbook": lambda _: case.textbook_step(W),
        },
        repeats,
    )
    print("\nOne iteration, K = N = 40, 20 dB, batch 100, complex64 (medians)")
    for name, value in seconds.items():
        print(f"{name:>9}: {1e3 * value:7.2f} ms")
    print(f"step / solve    = {seconds['step'] / seconds['solve']:.2f}   (at most 2 wanted)")
    print(f"step / textbook = {seconds['step'] / seconds['textbook']:.2f}   (at most 0.5 wanted)")


def fewest_steps(share: float, target: float, rate_after, limit: int = 256) -> int | None:
    """The least number of steps whose mean rate reaches the share of the target, by doubling and bisection."""
    high = 1
    while rate_after(high) < share * target:
        high *= 2
        if high > limit:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rate_after(middle) >= share * target else (middle, high)
    return high


def time_ratio(case: Case, repeats: int, verbose: bool = True) -> float:
    """Time of the textbook over ours to the same share of the converged rate, each from its best start."""
    target = case.rate(case.run(1.0, 500, "none"))
    found = {}
    runs = {"textbook": case.run_textbook}
    for acceleration in ("none", "squarem", "anderson"):
        runs[f"reduced, {acceleration}"] = functools.partial(case.run, acceleration=acceleration)
    for name, run in runs.items():
        starts = RIDGES if name == "textbook" else (*RIDGES, ANNEALED)
        counts = {r: fewest_steps(SHARE, target, lambda n, run=run, r=r: case.rate(run(r, n))) for r in starts}
        ridge, steps = min(((r, n) for r, n in counts.items() if n is not None), key=lambda item: item[1])
        found[name] = (ridge, steps, run)
    tasks = {name: lambda _, run=run, r=ridge, n=steps: run(r, n) for name, (ridge, steps, run) in found.items()}
    seconds = interleaved(tasks, repeats)
    best = min((name for name in seconds if name != "textbook"), key=seconds.__getitem__)
    if verbose:
        print(f"\nTime to {100 * SHARE:.1f} % of the converged rate ({target:.2f} bit/s/Hz, 500 plain steps from RZF)")
        for name, (ridge, steps, _) in found.items():
            print(f"{name:>18}: {steps:3d} steps from {NAMES[ridge]:<43} {1e3 * seconds[name]:8.1f} ms")
        print(f"textbook / {best} = {seconds['textbook'] / seconds[best]:.1f}   (at least 3 wanted)")
    return seconds["textbook"] / seconds[best]


def antenna_sweep(out: Path, sizes: list[int], repeats: int) -> None:
    """The ratio of times against the number of antennas at K = 40."""
    print("\nAdvantage to the same rate, K = 40 users, batch 20")
    ratios = []
    for N in sizes:
        ratios.append(time_ratio(Case(20, 40, N), repeats, verbose=False))
        print(f"N = {N:4d}: {ratios[-1]:7.1f} times sooner")
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    axes.loglog(sizes, ratios, "o-")
    axes.set(
        xlabel="antennas N", ylabel="textbook time / ours", title=f"Time to {100 * SHARE:.1f} % of the rate, K = 40"
    )
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.minorticks_off()
    axes.set_yticks(
        ticks := [t for t in (2, 5, 10, 20, 50, 100, 200, 500) if t <= 2 * max(ratios)], [str(t) for t in ticks]
    )
    axes.grid(alpha=0.3)
    figure.savefig(out / "wmmse_against_antennas.png", dpi=160)


def cost_growth(out: Path, repeats: int) -> None:
    """Milliseconds of ten iterations (with the Gram matrix) against K, N and batch, and its exponent at the end."""
    sweeps = {
        "users K (N = 64, batch 20)": ([8, 16, 32, 64], lambda K: Case(20, K, 64)),
        "antennas N (K = 16, batch 20)": ([64, 256, 1024, 4096], lambda N: Case(20, 16, N)),
        "batch (K = 16, N = 32)": ([10, 40, 160, 640], lambda B: Case(B, 16, 32)),
    }
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
    print("\nGrowth of cost, ten iterations")
    for axes, (label, (sizes, make)) in zip(panels, sweeps.items(), strict=True):
        cases = {size: make(size) for size in sizes}
        tasks = {str(size): lambda _, case=case: case.run(30.0, 10, "none") for size, case in cases.items()}
        ms = [1e3 * value for value in interleaved(tasks, repeats).values()]
        slope = np.log(ms[-1] / ms[-2]) / np.log(sizes[-1] / sizes[-2])
        print(
            f"{label:<30} "
            + "  ".join(f"{s}: {m:.1f} ms" for s, m in zip(sizes, ms, strict=True))
            + f"   exponent {slope:.2f}"
        )
        axes.loglog(sizes, ms, "o-")
        axes.set(xlabel=label, title=f"exponent at the end {slope:.2f}")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500) if panels[0].get_ylim()[0] <= t <= panels[0].get_ylim()[1]]
    panels[0].set_yticks(ticks, [str(t) for t in ticks])
    panels[0].set_ylabel("milliseconds")
    figure.savefig(out / "wmmse_growth.png", dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and smaller sweeps")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    print(Machine.here())
    if options.peers:
        published_rates(options.peers)
    repeats = 5 if options.quick else 31
    iteration_cost(repeats)
    time_ratio(Case(100, 40, 40), 3 if options.quick else 7)
    antenna_sweep(options.out, [40, 128] if options.quick else [40, 64, 128, 256, 512], 3)
    cost_growth(options.out, 3 if options.quick else 9)


if __name__ == "__main__":
    main()
