"""The shipped weights of power control: their headers, and lower limits on their accuracy."""

from __future__ import annotations

import pytest
import torch

import beamforge
from beamforge.cli import main
from beamforge.core.named_problems import build_problem
from beamforge.io.weights import card, load
from beamforge.learned.links.labels import label
from beamforge.registry import create
from beamforge.scenarios import Strong, Weak
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.training.recipe import Recipe

MODELS = ("neural-sum-rate", "gnn", "td3")
SIZES = (4, 16, 64)

NAMES = [(model, links) for model in MODELS for links in SIZES]


@pytest.mark.parametrize(("model", "links"), NAMES)
def test_headers_tell_where_they_come_from(model, links):
    trained = load(model, name=f"{model}-{links}")
    assert trained.settings["links"] == links and len(trained.header["commit"]) >= 7
    assert "dirty" not in trained.header["commit"]
    shipped = Recipe.find(f"{model}-{links}").tables()
    for section in ("model", "data", "optimiser", "run"):
        for name, value in trained.header["recipe"][section].items():
            now = shipped[section][name]
            assert (list(now) if isinstance(now, tuple) else now) == value, f"{section}.{name}"
    assert all(name.startswith(f"networks.{links}.") for name in trained.tensors)


def test_they_are_listed_and_come_with_cards(capsys):
    assert main(["list", "models"]) == 0
    listed = capsys.readouterr().out
    for model in MODELS:
        told = card(model).read_text(encoding="utf-8")
        assert "beamforge reproduce power-control" in told
        for links in SIZES:
            assert f"{model}-{links}" in listed and f"beamforge train {model}-{links}" in told
    assert all(len(line.split()) > 2 for line in listed.splitlines()), "weights without a description"
    assert main(["list", "methods"]) == 0
    assert "neural-sum-rate         sum-rate (power-control)" in capsys.readouterr().out


def accuracy_and_share(method, source, count=40):
    """Power accuracy and the mean share of the rate of the best powers known."""
    instance = source.sample(count, seed=TEST_SEEDS[5], dtype=torch.complex128)
    problem = build_problem("sum-rate", instance.context)
    best = label(instance)
    W = create(problem, instance.observation.network, method).solve(problem, instance).W
    p = W.abs().square().squeeze(-2)
    share = problem.bind(instance.observation.network).value(instance.observation.network, W) / best.utility
    return 1 - (p - best.p).norm(dim=-1) / best.p.norm(dim=-1), share


@pytest.mark.parametrize(("links", "least", "weighted"), [(4, 0.9836, 0.97), (16, 0.9943, 0.97), (64, 0.9854, 0.94)])
def test_neural_sum_rate_is_as_accurate_as_published(links, least, weighted):
    accuracy, _ = accuracy_and_share("neural-sum-rate", Weak(links))
    assert accuracy.mean() >= least
    accuracy, _ = accuracy_and_share("neural-sum-rate", Weak(links, random_weights=True))
    assert accuracy.mean() >= weighted


@pytest.mark.parametrize(("method", "weak", "strong"), [("gnn", 0.995, 0.9), ("td3", 0.97, 0.8)])
def test_baselines_have_learned(method, weak, strong):
    for source, least in ((Weak(4), weak), (Weak(4, random_weights=True), weak - 0.02), (Strong(4), strong)):
        assert accuracy_and_share(method, source)[1].mean() >= least


def test_weights_are_chosen_by_the_number_of_links():
    solver = create(*problem_and_network(16), "neural-sum-rate")
    for links in (16, 4):
        problem, network = problem_and_network(links)
        one, other = (s.solve(problem, network).W for s in (solver, create(problem, network, "neural-sum-rate")))
        assert torch.equal(one, other)
    assert not any(parameter.requires_grad for parameter in solver.parameters())


def problem_and_network(links):
    instance = Weak(links).sample(2)
    return build_problem("sum-rate", instance.context), instance.observation.network


def test_by_name():
    G = torch.eye(4) + 0.05
    found = beamforge.solve(G, noise=0.05, p_max=2.0, method="neural-sum-rate")
    torch.testing.assert_close(found.W.abs().square().squeeze(-2), torch.full((4,), 0.5), atol=0.02, rtol=0)
