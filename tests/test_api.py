"""`beamforge.solve`, its errors, and the registry."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import beamforge
from beamforge import BeamforgeError, ConfigError, Network, Problem, ShapeError, UnsupportedProblem
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.constraints import TotalPower
from beamforge.core.named_problems import PROBLEMS, build_problem
from beamforge.core.utilities import MinRate, MinSinr, SumRate
from beamforge.registry import METHODS, configure, methods_for

H = torch.randn(5, 3, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


def test_public_names_are_imported_at_first_use():
    """The command line shows its help without PyTorch, which takes seconds to import."""
    code = (
        "import sys, beamforge.cli; assert 'torch' not in sys.modules; beamforge.solve; assert 'torch' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE).stderr == b""
    listed = {name for names in beamforge.MODULES.values() for name in names}
    assert listed | {"__version__"} == set(beamforge.__all__) <= set(dir(beamforge))
    for name in listed:
        assert getattr(beamforge, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'slove'"):
        beamforge.slove  # noqa: B018


def test_named_problem_problem_object_and_solver_give_the_same_beams():
    named = beamforge.solve(H, noise=0.1, p_max=2.0, weights=[1.0, 2.0, 0.5])
    problem = Problem(SumRate([1.0, 2.0, 0.5]), (TotalPower(2.0),))
    typed = beamforge.solve(H, noise=0.1, problem=problem)
    direct = ReducedWMMSE().solve(problem, Network.broadcast(H, 0.1))
    assert torch.equal(named.W, typed.W)
    assert torch.equal(named.W, direct.W)


def test_settings_are_passed_to_the_method_and_parsed_from_strings():
    solver = configure(ReducedWMMSE, {"tolerance": "1e-3", "max_iterations": "7", "acceleration": "none"})
    assert (solver.tolerance, solver.max_iterations, solver.acceleration) == (1e-3, 7, "none")
    few = beamforge.solve(H, noise=0.001, p_max=1.0, method="wmmse", max_iterations=2, starts=1)
    assert few.iterations.tolist() == [2] * 5


def test_a_solver_as_the_method():
    solver = ReducedWMMSE(max_iterations=3, starts=1)
    found = beamforge.solve(H, noise=0.1, p_max=2.0, method=solver)
    named = beamforge.solve(H, noise=0.1, p_max=2.0, method="wmmse", max_iterations=3, starts=1)
    assert torch.equal(found.W, named.W) and found.asked.method == "wmmse"

    class Mine(ReducedWMMSE):
        """A method that has no name."""

    assert str(beamforge.solve(H, noise=0.1, p_max=2.0, method=Mine())).startswith("Solution by Mine\n")


def test_a_solver_is_made_once_for_equal_settings(monkeypatch):
    made = []
    monkeypatch.setattr("beamforge.registry.configure", lambda *a: made.append(a) or configure(*a))
    for steps in (1, 1, 2, 1):
        beamforge.solve(H, noise=0.1, p_max=2.0, method="multipliers", steps=steps, width=24)
    assert len(made) == 2
    random = [beamforge.solve(H, noise=0.1, p_max=2.0, method="multipliers", checkpoint="random") for _ in range(2)]
    assert len(made) == 4 and random[0].W.shape == random[1].W.shape


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"method": "wmsse"}, ConfigError, "did you mean 'wmmse'"),
        ({"problem": "sumrate"}, ConfigError, "did you mean 'sum-rate'"),
        ({"method": "wmmse", "start_count": 2}, ConfigError, "unknown setting of wmmse"),
        ({"method": "wmmse", "starts": "many"}, ConfigError, "starts must be int, got 'many'"),
        ({"method": "mrt", "problem": "min-power", "sinr_target": 1.0}, UnsupportedProblem, "duality"),
        (
            {"method": "branch-and-bound", "H": torch.cat([H, H], 1)},
            UnsupportedProblem,
            r"branch-and-bound \(at most 5 users\) does not serve SumRate .* of 6 users",
        ),
        ({"p_max": None}, ConfigError, "p_max"),
        ({"problem": "min-power", "method": None}, ConfigError, "sinr_target must be given"),
        ({"p_max": -1.0}, ShapeError, "must be positive and finite, got -1"),
        ({"noise": 0.0}, ShapeError, "noise must be positive"),
        ({"weights": [1.0, 2.0]}, ShapeError, "weights of SumRate must broadcast"),
        ({"weights": torch.ones(3, dtype=torch.float64)}, ShapeError, "torch.float32"),
        ({"H": H.real}, ShapeError, r"G must be non-empty \[..., K, K\]"),
        ({"H": H.tolist()}, ShapeError, "H must be a torch tensor or a NumPy array, got list"),
        ({"H": H[:, :, :3].abs().half()}, ShapeError, "G must be real, float32 or float64, got torch.float16"),
        ({"H": H[:, :, :3].abs(), "serving": torch.arange(3)}, ShapeError, "serving must be left out with power gains"),
        ({"noise": None}, ShapeError, "noise must be a real number or an array of them, got None"),
        ({"noise": "loud"}, ShapeError, "noise must be a real number"),
        ({"noise": 1j}, ShapeError, "noise must be a real number"),
        ({"noise": torch.inf}, ShapeError, "noise must be positive, finite watts, got inf"),
        ({"p_max": torch.inf}, ShapeError, "limit of TotalPower must be positive and finite, got inf"),
        ({"p_max": [1.0, [2.0]]}, ShapeError, "limit of TotalPower must be a real number"),
        ({"weights": [torch.inf, 1.0, 1.0]}, ShapeError, "non-negative and finite, got inf"),
        ({"weights": "a.safetensors"}, ConfigError, "trained weights are checkpoint='a.safetensors'"),
        ({"weights": Path("a.safetensors")}, ConfigError, "weights must be those of the rates"),
        ({"problem": Problem(SumRate(), (TotalPower(1.0),))}, ConfigError, "p_max must be left out with a Problem"),
        ({"jain": 0.9}, ConfigError, "jain must be left out with sum-rate"),
        ({"problem": "max-min", "jain": 0.9}, ConfigError, "jain must be left out with max-min"),
        ({"sinr_target": torch.ones(3)}, ConfigError, "sinr_target must be left out with sum-rate"),
        ({"problem": None}, ConfigError, "problem must be a name or a Problem, got None"),
        ({"method": 3}, ConfigError, "method must be a name, a solver or None, got 3"),
        ({"method": ReducedWMMSE(), "starts": 2}, ConfigError, "starts must be left out with a solver"),
        ({"method": "wmmse", "tolerance": None}, ConfigError, "tolerance must be float, got None"),
        ({"method": "wmmse", "tolerance": torch.nan}, ConfigError, "tolerance must be float, got nan"),
        ({"method": "wmmse", "max_iterations": 2.5}, ConfigError, "max_iterations must be int, got 2.5"),
        ({"method": "wmmse", "starts": [3]}, ConfigError, r"starts must be int, got \[3\]"),
        ({"start": torch.ones(5, 4, 3)}, ShapeError, "start must be torch.complex64 on cpu like the channel"),
        ({"start": H.mT.numpy()}, ShapeError, "start must be a torch tensor"),
        ({"H": H[:, None], "serving": torch.zeros(2, 3, dtype=torch.long)}, ShapeError, "serving must be integers"),
        ({"H": H[:, None], "serving": torch.zeros(3)}, ShapeError, "serving must be integers, got torch.float32"),
        ({"H": H[:, None], "serving": "abc"}, ShapeError, "serving must be integers, got 'abc'"),
        (
            {"H": torch.where(torch.arange(5)[:, None, None] == 3, torch.nan, H)},
            ShapeError,
            r"NaN or Inf at \(3, 0, 0\)",
        ),
    ],
)
def test_a_bad_request_is_refused_in_one_sentence(arguments, kind, words):
    call = {"H": H, "noise": 0.1, "p_max": 1.0} | arguments
    with pytest.raises(kind, match=words) as caught:
        beamforge.solve(**call)
    assert isinstance(caught.value, BeamforgeError)
    assert "\n" not in str(caught.value)


def test_max_min_reads_weights_then_targets_then_rates():
    limit = {"p_max": 1.0}
    assert build_problem("max-min", limit | {"weights": 2.0, "sinr_target": 3.0}).maximise == MinRate(2.0)
    assert build_problem("max-min", limit | {"sinr_target": 3.0}).maximise == MinSinr(3.0)
    assert build_problem("max-min", limit).maximise == MinRate()


def test_every_problem_has_a_default_method_on_every_form_of_network():
    targets = {"target_angles": torch.zeros(1), "target_gain": torch.ones(1), "sensing_snr_target": 0.1}
    stated = {"p_max": 1.0, "sinr_target": 0.1, "jain": 0.9, **targets}
    networks = [
        Network.broadcast(H, 0.1),
        Network.multicell(H[:, None].expand(5, 2, 3, 4), 0.1, torch.tensor([0, 1, 1])),
        Network.power_control(H.abs()[..., :3], 0.1),
    ]
    for name in PROBLEMS:
        for network in networks[:1] if name in ("fair-sum-rate", "isac", "hybrid-min-power") else networks:
            assert methods_for(build_problem(name, stated), network), f"{name} on {network.H.shape}"
    assert methods_for(build_problem("sum-rate", stated), networks[0])[0] == "wmmse"
    assert set(methods_for(build_problem("min-power", stated), networks[0])) >= {"duality"}
    assert {"mrt", "zf", "rzf", "slnr", "wslnr", "wmmse", "fastfp", "duality"} <= set(METHODS)


def test_numpy_arrays_give_numpy_results():
    rng = np.random.default_rng(0)
    array = rng.standard_normal((5, 3, 4)) + 1j * rng.standard_normal((5, 3, 4))
    found = beamforge.solve(array, noise=0.1, p_max=2.0, weights=np.array([1, 2, 0.5], np.float32))
    same = beamforge.solve(torch.as_tensor(array), noise=0.1, p_max=2.0, weights=[1.0, 2.0, 0.5])
    for name in ("W", "rate", "sinr", "utility", "status"):
        assert isinstance(getattr(found, name), np.ndarray), name
        np.testing.assert_allclose(getattr(found, name), getattr(same, name).numpy(), rtol=1e-12, err_msg=name)
    power = np.abs(array[..., :3]) ** 2 + np.eye(3)
    p = beamforge.solve(power, noise=0.1, p_max_transmitter=np.ones(3)).W
    assert isinstance(p, np.ndarray) and (np.abs(p) ** 2 <= 1 + 1e-9).all()


def test_a_limit_for_every_transmitter():
    cells = torch.randn(5, 3, 3, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    limits = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    serving = torch.arange(3)
    for name in ("p_max", "p_max_transmitter"):
        W = beamforge.solve(cells, noise=0.1, serving=serving, **{name: limits}).W
        assert (W.abs().square().sum(-2) <= limits * (1 + 1e-9)).all()
    with pytest.raises(ConfigError, match="p_max_transmitter must be left out where p_max limits each"):
        beamforge.solve(cells, noise=0.1, serving=serving, p_max=1.0, p_max_transmitter=limits)


@pytest.mark.parametrize("axes", ["BKMTNSF", "FSNTMKB", "NKBSTFM"])
def test_named_axes_are_put_in_order(axes):
    sizes = {"B": 2, "K": 3, "M": 1, "T": 1, "N": 4, "S": 2, "F": 3}
    rng = np.random.default_rng(0)
    standard = rng.standard_normal((2, 2, 3, 3, 4)) + 1j * rng.standard_normal((2, 2, 3, 3, 4))  # B S F K N
    array = np.einsum("bsfkn->" + axes.lower().replace("m", "").replace("t", ""), standard)
    array = array.reshape([sizes[letter] for letter in axes])
    found = beamforge.from_axes(array, axes)
    np.testing.assert_array_equal(found, standard.reshape(12, 3, 4))
    np.testing.assert_array_equal(beamforge.from_axes(torch.as_tensor(array), axes), found)
    W = beamforge.solve(array, noise=0.1, p_max=1.0, axes=axes).W
    np.testing.assert_allclose(W, beamforge.solve(found, noise=0.1, p_max=1.0).W, rtol=1e-9)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ("BKK", "every axis once"),
        ("BKX", "axes must be of the letters"),
        ("BTN", "must have K"),
        ("BKNF", "must name the 3 axes"),
        ("", "letters"),
    ],
)
def test_invalid_axes_are_refused(axes, words):
    with pytest.raises(ShapeError, match=words):
        beamforge.from_axes(H, axes)


def test_a_solution_has_rates_and_utility():
    found = beamforge.solve(torch.cat([H, torch.full_like(H[:1], 0.0)]), noise=0.1, p_max=1.0)
    network = Network.broadcast(torch.cat([H, torch.zeros_like(H[:1])]), 0.1)
    torch.testing.assert_close(found.rate, network.rate(found.W))
    torch.testing.assert_close(found.utility, found.rate.sum(-1))
    lost = beamforge.solve(H[:1, :2, :1], noise=0.1, problem="min-power", sinr_target=10.0)
    assert lost.utility.isnan().all() and (lost.rate == 0).all()
