"""`beamforge label`: the best powers known, with what proves them, the same however and wherever they are found."""

from __future__ import annotations

import json
import multiprocessing
import os

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from beamforge.cli import label as command
from beamforge.cli import main
from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.io.channels import ChannelFile
from beamforge.learned.links.labels import Certificate, label
from beamforge.scenarios import Rayleigh, Strong, Weak


def run(*arguments) -> int:
    return main(["label", *map(str, arguments)])


def arrays(path) -> dict[str, np.ndarray]:
    with ChannelFile(path) as channels:
        return channels.arrays() | {"meta": channels.meta}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def utility(G, w, p, noise=0.05):
    signal = np.diag(G) * p
    return w @ np.log2(1 + signal / (G @ p - signal + noise))


@pytest.mark.parametrize("family", [Weak, Strong])
def test_labels_are_optimal(family):
    instance = family(links=3, random_weights=True).sample(4, seed=5, dtype=torch.complex128)
    found = label(instance)
    G, w = instance.truth.gains.numpy(), instance.context["weights"].numpy()
    rng = np.random.default_rng(0)
    for i in range(4):
        assert found.utility[i] == pytest.approx(utility(G[i], w[i], found.p[i].numpy()))
        assert found.p[i].sum() == pytest.approx(2)

        def worth(v, i=i):
            return -utility(G[i], w[i], 2 * v**2 / (v @ v))

        best = -min(minimize(worth, rng.random(3)).fun for _ in range(10))
        assert found.utility[i] >= best - 1e-9
    expected = Certificate.QUASI_INVERSE if family is Weak else Certificate.BRANCH_AND_BOUND
    assert (found.certificate == expected).all()


def test_certificates_in_a_mixed_batch():
    strong, weak = (family(links=4).sample(2, seed=3, dtype=torch.complex128) for family in (Strong, Weak))
    both = batching.tree_map(lambda *leaves: torch.cat(leaves), strong, weak)
    found = label(both)
    assert found.certificate.tolist() == [1, 1, 2, 2]
    alone = torch.cat([label(strong).p, label(weak).p])
    torch.testing.assert_close(found.p, alone, rtol=1e-8, atol=1e-10)


def test_certificate_is_a_proven_gap():
    found = label(Strong(links=16).sample(2, seed=0, dtype=torch.complex128))
    assert (found.certificate == Certificate.MANY_STARTS).all()
    with pytest.raises(ConfigError, match="links under one total power, got a network of 1 transmitters, 4 users"):
        label(Rayleigh(4).sample(1))


def test_label_file_is_a_channel_file(tmp_path, capsys):
    path = tmp_path / "labels.npz"
    options = "--count", 20, "--seed", 7, "--jobs", 1, "--json", "--set", "links=5", "--set", "random_weights=true"
    assert run("strong", *options, "--out", path) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["certificates"] == {"branch and bound": 20}
    found = arrays(path)
    instance = Strong(links=5, random_weights=True).sample(20, seed=7, dtype=torch.complex128)
    np.testing.assert_allclose(found["G"], instance.truth.gains.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(found["weights"], instance.context["weights"].numpy())
    np.testing.assert_allclose(found["utility"].mean(), said["mean_utility"])
    assert found["meta"]["seed"] == 7 and found["meta"]["links"] == 5
    assert main(["evaluate", str(path), str(path), "--problem", "sum-rate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_utility"] == pytest.approx(said["mean_utility"])


def test_processes_and_pieces_do_not_change_labels(tmp_path):
    count = 2 * command.PIECE + 3
    assert run("weak", "--count", count, "--seed", 1, "--jobs", 2, "--out", tmp_path / "two.h5") == 0
    assert run("weak", "--count", count, "--seed", 1, "--jobs", 1, "--out", tmp_path / "one.npz") == 0
    one, two = arrays(tmp_path / "one.npz"), arrays(tmp_path / "two.h5")
    assert same(one, two)
    alone = command.Piece("weak", {}, 1, count - 1, 1).label()
    np.testing.assert_allclose(alone["p"][0], one["p"][-1], rtol=1e-7)


def die_in_the_third_piece(path, count):
    original, calls = command.Piece.label, []

    def fatal(piece):
        calls.append(piece)
        if len(calls) == 4:  # the first call sizes up a row
            os._exit(9)
        return original(piece)

    command.Piece.label = fatal
    run("strong", "--count", count, "--seed", 2, "--jobs", 1, "--out", path)


def test_interrupted_run_is_continued(tmp_path, monkeypatch, capsys):
    count, path = 4 * command.PIECE, tmp_path / "labels.h5"
    process = multiprocessing.get_context("fork").Process(target=die_in_the_third_piece, args=(path, count))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert not path.exists() and path.with_name("labels.h5.partial").exists()
    assert run("strong", "--count", count, "--seed", 3, "--jobs", 1, "--out", path) == 2
    assert "different request" in capsys.readouterr().err
    original, places = command.Piece.label, []
    monkeypatch.setattr(command.Piece, "label", lambda piece: (places.append(piece.first), original(piece))[1])
    assert run("strong", "--count", count, "--seed", 2, "--jobs", 1, "--out", path) == 0
    assert places == [0, 2 * command.PIECE, 3 * command.PIECE]  # 0 sizes up a row
    assert run("strong", "--count", count, "--seed", 2, "--jobs", 1, "--out", tmp_path / "whole.npz") == 0
    assert same(arrays(path), arrays(tmp_path / "whole.npz"))
    assert not path.with_name("labels.h5.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("stong", "--count", 2, "--seed", 0), "did you mean 'strong'"),
        (("cell", "--count", 2, "--seed", 0), "links under one total power"),
        (("weak", "--count", 0, "--seed", 0), "0"),
        (("weak", "--count", 2, "--seed", -1), "-1"),
        (("weak", "--count", 2, "--seed", 0, "--set", "link=3"), "link"),
        (("weak", "--count", 2, "--seed", 0, "--jobs", 0), "0"),
    ],
)
def test_invalid_requests_are_rejected_in_one_sentence(tmp_path, capsys, arguments, words):
    assert run(*arguments, "--out", tmp_path / "x.npz") == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_unwritable_output_is_detected_first(tmp_path, capsys):
    assert run("weak", "--count", 2, "--seed", 0, "--out", tmp_path / "no" / "x.npz") == 2
    assert "cannot be written" in capsys.readouterr().err
