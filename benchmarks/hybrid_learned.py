"""Power and outage of learned hybrid methods on held-out instances, beside the margin method at the same outage.

    python benchmarks/hybrid_learned.py hybrid-gcn --count 2000 --users 1 2 3 4

Prints a row for each number of users and kind of channel knowledge: mean power, outage, power in percent of that of
`hybrid-margin` at the same outage (paired), each with a 95 % interval, and the share of instances without beams. With
`--time`, also the time of each method for a batch of 100 over that of `greedy-hybrid` on perfect channels.
"""

from __future__ import annotations

import argparse

import torch

from beamforge.bench.timing import interleaved
from beamforge.registry import MODELS, configure
from beamforge.reproduce.hybrid.baseline import Baseline
from beamforge.reproduce.hybrid.cells import FEEDBACK, PILOTS, Cell, learned, mean, perfect, run

NOMINAL = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", help="learned methods")
    parser.add_argument("--checkpoint", default="shipped", help="weights of the methods")
    parser.add_argument("--count", type=int, default=2000, help="held-out instances of a cell")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 2, 3, 4], help="numbers of users")
    parser.add_argument("--selections", type=int, help="codewords tried to be replaced; the method's default")
    parser.add_argument("--feedback", action="store_true", help="Type II feedback instead of pilots")
    parser.add_argument("--alone", action="store_true", help="without the margin method")
    parser.add_argument("--time", action="store_true", help="times instead, side by side")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.time:
        times(chosen.methods, chosen.checkpoint)
        return
    kinds = FEEDBACK if chosen.feedback else PILOTS
    print("| method | users | channel knowledge | power (W) | outage (%) | % of hybrid-margin | unsolved (%) |")
    print("|---|---|---|---|---|---|---|")
    for users in chosen.users:
        for kind in kinds:
            cell = Cell(users, *kind)
            instance = cell.test(chosen.count)
            rival = None if chosen.alone else Baseline.of(cell, NOMINAL, chosen.count, chosen.count)
            if rival is not None:
                report(f"hybrid-margin, {rival.margin_db:.2f} dB", cell, rival.nominal, None)
            for name in chosen.methods:
                settings = {"checkpoint": chosen.checkpoint}
                if chosen.selections is not None and name != "fulldigital-gcn":
                    settings["selections"] = str(chosen.selections)
                solver = configure(MODELS[name], settings)
                report(name, cell, run(learned(solver, NOMINAL), instance), rival)


def times(names, checkpoint):
    """Print seconds for 100 instances of four users, and their ratio to `greedy-hybrid`."""
    instance = Cell(4, *PILOTS[1]).sample(100, 0)
    tasks = {"greedy-hybrid": lambda _: perfect(instance)}
    for name in names:
        solve = learned(configure(MODELS[name], {"checkpoint": checkpoint}), NOMINAL)
        tasks[name] = lambda _, solve=solve: solve(instance)
    found = interleaved(tasks, repeats=7)
    for name, seconds in found.items():
        print(f"{name:20} {seconds:.4f} s, {seconds / found['greedy-hybrid']:.2f} of greedy-hybrid")


def report(name, cell, result, rival):
    """Print a row."""
    power, outage = mean(result.power), result.outage
    percent = rival.percent(result) if rival is not None else None
    share = "" if percent is None else f"{percent.value:.1f} ± {percent.half:.1f}"
    row = [name, cell.users, cell.name, f"{power.value:.3f} ± {power.half:.3f}"]
    row += [f"{100 * outage.value:.2f} ± {100 * outage.half:.2f}", share, f"{100 * result.unsolved:.2f}"]
    print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
