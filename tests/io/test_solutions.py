"""Solution files: streams of every kind and factors come back; beams that do not fit the channels are one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.io
import torch

from beamforge import Network, Problem
from beamforge.cli import main
from beamforge.core.beams import Factors
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ChannelFileError
from beamforge.core.evaluate import evaluate
from beamforge.core.instance import Instance
from beamforge.core.solution import Solution
from beamforge.core.utilities import SumRate
from beamforge.io.channel_writing import write_channels
from beamforge.io.channels import ChannelFile
from beamforge.io.solutions import SolutionFile, solution_rows

B, N = 3, 4


def gaussian(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def one_transmitter(rows=3, **streams):
    return Network.broadcast(gaussian(B, rows, N), 0.1, **streams)


def two_transmitters(serving, user=None, M=1):
    user = None if user is None else torch.tensor(user)
    return Network.multicell(gaussian(B, 2, 3 * M, N), 0.1, torch.tensor(serving), user, M)


NETWORKS = {
    "one stream each": one_transmitter(),
    "sensing": one_transmitter(sensing_streams=2),
    "an order": one_transmitter(stream_user=torch.tensor([2, -1, 0, 1])),
    "an order of each instance": one_transmitter(stream_user=torch.tensor([[2, 0, 1], [0, 1, 2], [1, -1, -1]])),
    "several antennas": one_transmitter(6, receive_antennas=2),
    "several antennas and sensing": one_transmitter(6, receive_antennas=2, sensing_streams=1),
    "several antennas, one stream each": one_transmitter(6, receive_antennas=2, stream_user=torch.arange(3)),
    "two transmitters": two_transmitters([1, 0, 1]),
    "two transmitters and sensing": two_transmitters([1, 0, 1, 1]),
    "two transmitters, several antennas": two_transmitters([0, 1, 0, 1], [0, 2, 2, -1], M=2),
}


def equal(one, other):
    torch.testing.assert_close(one.H, other.H, rtol=0, atol=0)
    torch.testing.assert_close(one.noise, other.noise, rtol=0, atol=0)
    assert (one.users, one.receive_antennas) == (other.users, other.receive_antennas)
    assert torch.equal(one.streams.transmitter, other.streams.transmitter)
    assert torch.equal(one.streams.data_of(one.users), other.streams.data_of(other.users))


@pytest.mark.parametrize("form", ["npz", "h5"])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_channels_and_streams_are_read_back(network, form, tmp_path):
    path = tmp_path / f"channels.{form}"
    write_channels(path, Instance.perfect(network))
    with ChannelFile(path) as file:
        equal(file.read().truth, network)
        equal(
            file.read(1, 1).truth, Network(network.H[1:2], network.noise[1:2], part(network), network.receive_antennas)
        )


def part(network):
    streams = network.streams
    return type(streams)(streams.transmitter[1:2], None if streams.user is None else streams.user[1:2])


def test_streams_of_a_matlab_file(tmp_path):
    network = NETWORKS["two transmitters and sensing"]
    arrays = {"H": network.H.numpy(), "noise": 0.1, "serving": [1, 0, 1, 1], "stream_user": [0, 1, 2, -1]}
    scipy.io.savemat(tmp_path / "channels.mat", arrays)
    with ChannelFile(tmp_path / "channels.mat") as file:
        equal(file.read().truth, network)


def test_estimate_for_several_antennas_is_read_back(tmp_path):
    truth = NETWORKS["several antennas"]
    seen = Network(truth.H + 0.1, truth.noise, truth.streams, 2)
    write_channels(tmp_path / "both.npz", Instance.estimated(truth, seen))
    with ChannelFile(tmp_path / "both.npz") as file:
        equal(file.read().truth, truth)
        equal(file.read().observation.network, seen)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_external_beams_are_evaluated_with_their_streams(network, tmp_path, capsys):
    """The channel file knows of no streams but one a user; W, stream_user and serving say all."""
    known = {"H": network.H.squeeze(1) if network.transmitters == 1 else network.H, "noise": 0.1}
    if (M := network.receive_antennas) > 1:
        known["H"] = known["H"].unflatten(-2, (3, M))
        known["axes"] = "BKMN" if network.transmitters == 1 else "BTKMN"
    if network.transmitters > 1:
        known["serving"] = np.array([1, 0, 1])
    np.savez(tmp_path / "channels.npz", **known)
    W = gaussian(B, N, network.streams.count, seed=1)
    data = network.streams.data_of(3)
    user = torch.where(data.any(-2), data.int().argmax(-2), -1)
    np.savez(tmp_path / "beams.npz", W=W, stream_user=user, serving=network.streams.transmitter)
    expected = network.rate(W).sum(-1).mean().item()
    arguments = ["evaluate", str(tmp_path / "channels.npz"), str(tmp_path / "beams.npz"), "--p-max", "99", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["mean_sum_rate"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", ["npz", "h5"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if "transmitters" not in name])
def test_written_solution_has_the_same_score(name, form, tmp_path, capsys):
    network, channels, out = NETWORKS[name], str(tmp_path / "channels.npz"), str(tmp_path / f"out.{form}")
    write_channels(channels, Instance.perfect(network, p_max=torch.full((B,), 2.0, dtype=torch.float64)))
    assert main(["solve", channels, "--problem", "sum-rate", "--out", out, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    with ChannelFile(channels) as source, SolutionFile(out, source) as found:
        equal(found.network(source.read().truth, 0, B), network)
        W = found.beams(0, B)
        assert W.shape == (B, N, network.streams.count)
        assert network.rate(W).sum(-1).mean().item() == pytest.approx(summary["mean_utility"], rel=1e-9)
    assert main(["evaluate", channels, out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_utility"] == pytest.approx(summary["mean_utility"], rel=1e-9)


def test_shared_streams_are_one_row(tmp_path):
    for name, shape in (("several antennas", (6,)), ("an order of each instance", (B, 3))):
        write_channels(tmp_path / "channels.npz", Instance.perfect(NETWORKS[name]))
        channels = tmp_path / "shared.npz"
        arrays = dict(np.load(tmp_path / "channels.npz"))
        if name == "several antennas":
            del arrays["stream_user"]
        np.savez(channels, **arrays)
        out = tmp_path / "out.npz"
        stated = ["--problem", "sum-rate", "--p-max", "1", "--method", "rzf", "--out", str(out)]
        assert main(["solve", str(channels), *stated]) == 0
        assert np.load(out)["stream_user"].shape == shape


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"W": (B, N, 5), "stream_user": [0, 1, 2]}, "each of the 5 columns"),
        ({"W": (B, N, 3), "stream_user": [0, 1, 3]}, "0..2"),
        ({"W": (B, N, 3), "stream_user": [0.5, 1, 2]}, "integers"),
        ({"W": (B, N, 4), "serving": [0, 1, 1]}, "each of the 4 columns"),
        ({"W": (B, N, 4), "serving": [0, 1, 1, 2]}, "0..1"),
        ({"W": (B, N, 4), "stream_user": [0, 1, 2, -1]}, "serving must be given"),
        ({"W": (B, N, 4)}, r"\(3, 4, 3\)"),
        ({"W": (B, 5, 3), "serving": [0, 1, 1]}, "W must be"),
    ],
)
def test_beams_of_other_shapes_are_rejected(arrays, words, tmp_path):
    write_channels(tmp_path / "channels.npz", Instance.perfect(NETWORKS["two transmitters"]))
    given = {name: gaussian(*value) if name == "W" else np.array(value) for name, value in arrays.items()}
    np.savez(tmp_path / "beams.npz", **given)
    with (
        ChannelFile(tmp_path / "channels.npz") as source,
        pytest.raises(ChannelFileError, match=words) as caught,
        SolutionFile(tmp_path / "beams.npz", source) as found,
    ):
        found.network(source.read().truth, 0, B)
    assert "\n" not in str(caught.value)


def test_factors_and_further_metrics_are_per_instance():
    network = one_transmitter()
    A, digital = gaussian(B, N, 2), gaussian(B, 2, 3, seed=1)
    factors = Factors(A, digital, torch.rand(B, 3, dtype=torch.float64), torch.zeros(B, 2, dtype=torch.long))
    zeros = torch.zeros(B, dtype=torch.long)
    solution = Solution.hybrid(factors, torch.tensor([0, 2, 0]), zeros)
    report = evaluate(Problem(SumRate(), (TotalPower(9.0),)), network, solution.beams)
    report.figures["depth"] = torch.ones(B, 5)
    rows = solution_rows(solution, report, powers=False)
    assert rows["A"].shape == (B, N, 2) and rows["B"].shape == (B, 2, 3) and rows["p"].shape == (B, 3)
    assert rows["beam_index"].shape == (B, 2) and rows["depth"].shape == (B, 5)
    assert (rows["p"][1] == 0).all() and (rows["W"][1] == 0).all() and (rows["depth"][1] == 0).all()
    made = rows["A"] @ (rows["B"] * np.sqrt(rows["p"])[:, None])
    np.testing.assert_allclose(made, rows["W"], atol=1e-12)


def test_sensing_stream_remains_if_users_are_left_out(tmp_path, capsys):
    H = gaussian(B, 3, N)
    H[:, 1] = 0
    network = Network.broadcast(H, 0.1, sensing_streams=1)
    W = gaussian(B, N, 4, seed=1)
    np.savez(tmp_path / "channels.npz", H=H, noise=0.1, p_max=99.0)
    np.savez(tmp_path / "beams.npz", W=W)
    arguments = ["evaluate", str(tmp_path / "channels.npz"), str(tmp_path / "beams.npz"), "--problem", "max-min"]
    assert main([*arguments, "--drop-blocked", "--json"]) == 0
    others = Network.broadcast(H[:, [0, 2]], 0.1, sensing_streams=1)
    expected = others.rate(W[..., [0, 2, 3]]).amin(-1).mean().item()
    assert json.loads(capsys.readouterr().out)["mean_least_rate"] == pytest.approx(expected, rel=1e-9)
    assert (network.rate(W)[:, 1] == 0).all()
