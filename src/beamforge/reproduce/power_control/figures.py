"""The published figures of Algorithms 1 and 2: powers by iteration, training, powers by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from beamforge.classical.links.balancing import amplitudes
from beamforge.classical.links.branch_and_bound import LinkBranchAndBound
from beamforge.classical.links.mm_admm import MMADMM
from beamforge.classical.links.quasi_inverse import QuasiInverse
from beamforge.classical.links.wmmse import SharedPower
from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.learned.links.neural_sum_rate import NeuralSumRate, Unrolled
from beamforge.learned.links.sized import ordered, restored
from beamforge.plot.style import COLOURS, png, styled
from beamforge.reproduce.exhibits import Exhibit, Options, Picture, Table
from beamforge.scenarios.base import TEST_SEEDS, VALIDATION_SEEDS, Scenario
from beamforge.scenarios.power_control import Strong, ThreeLinks, Weak

STARTS = ([0.90, 1.50, 0.35], [0.16, 0.85, 1.00])
"""Starts of Fig. 2 (a) and (b)."""

ITERATIONS = 12

EPOCHS, QUICK_EPOCHS = 60, 5
LABELS, HELD_OUT, BATCH = 2000, 500, 250
"""Sizes of the training set, the validation set and a batch."""


def sampled_problem(source: Scenario, count: int, seed: int) -> tuple[Problem, Instance]:
    """A bound problem and its instances, double precision."""
    instance = source.sample(count, seed=seed, dtype=torch.complex128)
    return build_problem("sum-rate", instance.context).bind(instance.truth), instance


# --- Fig. 2 ----------------------------------------------------------------------------------------------------------
def powers_by_iteration() -> Picture:
    """Fig. 2: powers of the published instance against outer iterations of Algorithm 1, from both published starts."""
    problem, instance = sampled_problem(ThreeLinks(), 1, 0)
    best = LinkBranchAndBound().solve(problem, instance).W.abs().square().flatten()
    paths = [iteration_powers(problem, instance, start) for start in STARTS]
    return Picture("figure-2", png(draw_iterations(paths, best.numpy())))


def iteration_powers(problem: Problem, instance: Instance, start: Sequence[float]) -> np.ndarray:
    """Powers [iterations + 1, L] of Algorithm 1 from a start."""
    method = MMADMM()
    data = method.prepare(problem, instance.observation)
    (state,) = method.init(data, amplitudes(torch.tensor([start], dtype=torch.float64)), None)
    powers = [state.p]
    for _ in range(ITERATIONS):
        state, _ = method.step(data, state)
        powers.append(state.p)
    return (torch.cat(powers) * data.power).numpy()


@styled
def draw_iterations(paths: Sequence[np.ndarray], best: np.ndarray) -> Figure:
    """Solid powers, dashed optimum, a panel for each start."""
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, powers, letter in zip(panels, paths, "ab", strict=True):
        for link, colour in enumerate(COLOURS[: len(best)]):
            ax.axhline(best[link], color=colour, linestyle="--", linewidth=1)
            ax.plot(powers[:, link], color=colour, marker="o", markersize=3, label=f"$p_{link + 1}$")
        start = ", ".join(f"{p:.2f}" for p in powers[0])
        ax.set(title=f"({letter}) from ({start})", xlabel="Outer iteration", xticks=range(0, ITERATIONS + 1, 2))
    panels[0].set_ylabel("Power (mW)")
    panels[0].plot([], [], color="black", linestyle="--", linewidth=1, label="optimum")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


# --- Fig. 3 ----------------------------------------------------------------------------------------------------------
def training_curves(options: Options) -> Iterator[Exhibit]:
    """Fig. 3 (a): loss (18) and mean squared error of the sum rate by epoch, for a new training with four links.

    As published: Adam at 1e-3, weight decay 1e-4, certified optima of weakly interfering links as labels.
    """
    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    model = NeuralSumRate(checkpoint="random", links=4)
    generator = torch.Generator().manual_seed(0)
    source = Weak(4, random_weights=True)
    learned, held_out = labelled_instances(source, LABELS, 0), labelled_instances(source, HELD_OUT, VALIDATION_SEEDS[0])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    rows = [[0, None, None, rate_mse(model, held_out)]]
    for epoch in range(1, epochs + 1):
        losses = []
        for part in torch.randperm(LABELS, generator=generator).split(BATCH):
            loss, figures = model.loss(batching.take(learned, part), generator)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            losses.append([float(loss.detach()), float(figures["power_accuracy"])])
        rows.append([epoch, *np.mean(losses, 0).tolist(), rate_mse(model, held_out)])
    columns = ["Epoch", "Training loss", "Power accuracy", "MSE of the sum rate"]
    table = Table("training", f"Fig. 3 (a): training anew, 4 weak links, {LABELS} labels", columns, rows)
    yield table
    yield Picture("figure-3a", png(draw_training(table)))


def labelled_instances(source: Scenario, count: int, seed: int) -> Instance:
    """Instances, single precision, with their certified optima p [B, L] as labels."""
    problem, instance = sampled_problem(source, count, seed)
    p = QuasiInverse().solve(problem, instance).W.abs().square().squeeze(-2)
    single = source.sample(count, seed=seed)
    return Instance(single.truth, single.observation, {"p": p.float()})


@torch.no_grad()
def rate_mse(model: NeuralSumRate, instance: Instance) -> float:
    """Mean squared error of the weighted sum rate of the predicted powers, against the optimum, (bit/s/Hz)^2."""
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)
    ours, best = model.solve(problem, instance).W, amplitudes(instance.labels["p"])
    rates = (problem.value(instance.truth, W) for W in (ours, best))
    return float((next(rates) - next(rates)).square().mean())


@styled
def draw_training(table: Table) -> Figure:
    """Both errors on separate logarithmic axes."""
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    ax = figure.subplots()
    epochs, loss, _, mse = zip(*table.rows, strict=True)
    (one,) = ax.plot(epochs[1:], loss[1:], color=COLOURS[0], label="training loss")
    other = ax.twinx()
    (two,) = other.plot(epochs, mse, color=COLOURS[1], linestyle="--", label="MSE of the sum rate, held out")
    ax.set(xlabel="Epoch", ylabel="Training loss", yscale="log")
    other.set(ylabel="MSE ((bit/s/Hz)²)", yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    other.grid(visible=False)
    other.spines.right.set_visible(True)
    figure.legend(handles=[one, two], loc="outside upper center", ncols=2)
    return figure


def powers_by_layer() -> Iterator[Exhibit]:
    """Fig. 3 (b): powers after each of the K layers of the shipped network, beside the optimum."""
    try:
        model = NeuralSumRate()
        pictures = [(name, *layer_powers(model, source)) for name, source in (("weak", Weak(4)), ("strong", Strong(4)))]
    except ConfigError:
        return
    yield Picture("figure-3b", png(draw_layers(pictures)))


@torch.no_grad()
def layer_powers(model: NeuralSumRate, source: Scenario) -> tuple[np.ndarray, np.ndarray]:
    """Powers [K + 1, L] before and after the layers on the first test instance, and the optimum [L].

    The powers before a layer are the first input of its network for q.
    """
    problem, instance = sampled_problem(source, 1, TEST_SEEDS[0])
    best = LinkBranchAndBound().solve(problem, instance).W.abs().square().flatten()
    data = SharedPower.of(problem, instance.observation.network)
    _, order = ordered(data)
    model.solve(problem, instance)  # loads the weights
    seen: list[Tensor] = []
    network = model.networks[str(instance.truth.users)]
    assert isinstance(network, Unrolled)
    hooks = [psi.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0])) for psi in network.q]
    end = model.solve(problem, instance).W.abs().square().squeeze(-2)
    for hook in hooks:
        hook.remove()
    p = [restored(share / instance.truth.users, order) * data.power.unsqueeze(-1) for share in seen]
    return torch.cat([*p, end]).numpy(), best.numpy()


@styled
def draw_layers(pictures: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """Solid powers by layer, dashed optimum, a panel for each family."""
    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    panels = figure.subplots(1, len(pictures))
    for ax, (name, powers, best) in zip(panels, pictures, strict=True):
        for link, colour in enumerate(COLOURS[: len(best)]):
            ax.axhline(best[link], color=colour, linestyle="--", linewidth=1)
            ax.plot(powers[:, link], color=colour, marker="o", markersize=4, label=f"$p_{link + 1}$")
        ax.set(title=f"{name} interference", xlabel="Layer (the last scaled to the limit)", xticks=range(len(powers)))
    panels[0].plot([], [], color="black", linestyle="--", linewidth=1, label="optimum")
    panels[0].set_ylabel("Power (W)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure
