"""What users bring: other names, orders and forms of channels, limits per link, users without a channel."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from beamforge import Network
from beamforge.cli import main

RNG = np.random.default_rng(0)


def gaussian(*shape):
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)) / 2**0.5


H = gaussian(4, 3, 8)


def solve(folder, name, *options, problem="sum-rate", noise="0.1", power="1"):
    """Summary and arrays of a solved file."""
    out = folder / "out.npz"
    stated = [*(["--noise", noise] if noise else []), *(["--p-max", power] if power else [])]
    arguments = ["solve", str(folder / name), "--problem", problem, *stated, *options, "--json", "--out", str(out)]
    assert main(arguments) == 0
    return dict(np.load(out))


def said(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refused(folder, name, capsys, *options, problem="sum-rate", noise="0.1", power="1"):
    stated = [*(["--noise", noise] if noise else []), *(["--p-max", power] if power else [])]
    out = folder / "none.npz"
    arguments = ["solve", str(folder / name), "--problem", problem, *stated, *options, "--out", str(out)]
    assert main(arguments) == 2 and not out.exists()
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    return sentence


@pytest.fixture
def expected(tmp_path):
    np.savez(tmp_path / "plain.npz", H=H)
    return solve(tmp_path, "plain.npz")["rate"]


def test_channels_by_another_name(tmp_path, capsys, expected):
    scipy.io.savemat(tmp_path / "other.mat", {"channels": H, "about": "simulated"})
    scipy.io.savemat(tmp_path / "struct.mat", {"dataset": {"H": H, "snr": 10.0}})
    with h5py.File(tmp_path / "groups.h5", "w") as file:
        file["dataset/H"] = H
    assert "--key channels" in refused(tmp_path, "other.mat", capsys)
    assert "--key dataset.H" in refused(tmp_path, "struct.mat", capsys)
    for name, key in [("other.mat", "channels"), ("struct.mat", "dataset.H"), ("groups.h5", "dataset.H")]:
        np.testing.assert_allclose(solve(tmp_path, name, "--key", key)["rate"], expected, rtol=1e-9)
    assert "key must name an array" in refused(tmp_path, "other.mat", capsys, "--key", "chanels")


def test_file_with_a_single_array(tmp_path, expected):
    np.save(tmp_path / "one.npy", H)
    np.testing.assert_allclose(solve(tmp_path, "one.npy")["rate"], expected, rtol=1e-12)
    np.save(tmp_path / "gains.npy", np.eye(3)[None] + 0.01)
    assert solve(tmp_path, "gains.npy")["p"].shape == (1, 3)


def test_one_instance(tmp_path, capsys, expected):
    np.savez(tmp_path / "one.npz", H=H[0])
    assert "--axes KN" in refused(tmp_path, "one.npz", capsys)
    np.testing.assert_allclose(solve(tmp_path, "one.npz", "--axes", "KN")["rate"], expected[:1], rtol=1e-9)


def test_stacked_parts(tmp_path, capsys, expected):
    for axis in (0, 1, 3, -1):
        np.savez(tmp_path / "stacked.npz", H=np.stack([H.real, H.imag], axis))
        np.testing.assert_allclose(
            solve(tmp_path, "stacked.npz", "--real-imag", str(axis))["rate"], expected, rtol=1e-9
        )
    assert "--real-imag 3" in refused(tmp_path, "stacked.npz", capsys)
    assert "must have length 2" in refused(tmp_path, "stacked.npz", capsys, "--real-imag", "1")
    assert "must have axis 9" in refused(tmp_path, "stacked.npz", capsys, "--real-imag", "9")
    np.savez(tmp_path / "whole.npz", H=np.stack([np.arange(24).reshape(1, 3, 8), np.ones((1, 3, 8), int)]))
    solve(tmp_path, "whole.npz", "--real-imag", "0")


def test_subcarriers_are_instances_with_their_share_of_the_power(tmp_path, capsys):
    channels = gaussian(4, 12, 3, 8)
    np.savez(tmp_path / "ofdm.npz", H=channels, weights=np.arange(12).reshape(4, 3) + 1.0)
    assert "--axes BFKN" in refused(tmp_path, "ofdm.npz", capsys)
    found = solve(tmp_path, "ofdm.npz", "--axes", "BFKN")
    summary = said(capsys)
    assert found["W"].shape == (48, 8, 3)
    np.testing.assert_allclose(np.sum(np.abs(found["W"]) ** 2, (1, 2)), 1 / 12, rtol=1e-9)
    assert "48 instances (4 x 12 subcarriers) of 3 users, 8 transmit antennas" in summary["read"]
    assert any("1/12 of every power limit" in note for note in summary["notes"])
    np.savez(
        tmp_path / "flat.npz", H=channels.reshape(48, 3, 8), weights=np.repeat(np.arange(12).reshape(4, 3) + 1.0, 12, 0)
    )
    flat = solve(tmp_path, "flat.npz", power=str(1 / 12))
    np.testing.assert_allclose(found["rate"], flat["rate"], rtol=1e-9)


def test_summary_states_how_the_file_is_read(tmp_path, capsys):
    np.savez(tmp_path / "three.npz", H=gaussian(4, 3, 3, 8))
    solve(tmp_path, "three.npz")
    assert said(capsys)["read"] == "4 instances of 3 interfering cells, 8 antennas"
    solve(tmp_path, "three.npz", "--axes", "BFKN")
    assert said(capsys)["read"].startswith("12 instances (4 x 3 subcarriers) of 3 users")


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_a_simulator_s_seven_axes_in_any_pieces(tmp_path, chunk, monkeypatch):
    from beamforge.io import channels as files

    monkeypatch.setattr(files, "CHUNK_BYTES", chunk)
    channels = gaussian(2, 3, 1, 1, 8, 3, 4)  # batch, rx, rx antenna, tx, tx antenna, time, frequency
    np.savez(tmp_path / "sionna.npz", H=channels)
    found = solve(tmp_path, "sionna.npz", "--axes", "BKMTNSF", "--method", "rzf")
    np.savez(tmp_path / "flat.npz", H=channels[:, :, 0, 0].transpose(0, 3, 4, 1, 2).reshape(24, 3, 8))
    np.testing.assert_allclose(found["W"], solve(tmp_path, "flat.npz", "--method", "rzf", power="0.25")["W"], rtol=1e-9)
    np.savez(tmp_path / "odd.npz", H=channels.transpose(6, 0, 4, 1, 2, 3, 5), axes="FBNKMTS")
    np.testing.assert_allclose(solve(tmp_path, "odd.npz", "--method", "rzf")["W"], found["W"], rtol=1e-12)


def test_a_user_without_a_channel_is_counted_and_left_out_on_request(tmp_path, capsys):
    channels = gaussian(6, 4, 8)
    channels[0, 1] = 0
    channels[1] = 0
    np.savez(tmp_path / "blocked.npz", H=channels)
    solve(tmp_path, "blocked.npz")
    assert said(capsys)["notes"] == ["5 of 24 users have no channel, the first is user 1 of instance 0"]
    plain = solve(tmp_path, "blocked.npz", problem="max-min")
    found = solve(tmp_path, "blocked.npz", "--drop-blocked", problem="max-min")
    assert plain["utility"][0] == 0 and found["utility"][0] > 1 and found["rate"][0, 1] == 0
    np.testing.assert_allclose(found["utility"][2:], plain["utility"][2:], rtol=1e-9)
    np.savez(tmp_path / "three.npz", H=channels[:1, [0, 2, 3]])
    alone = solve(tmp_path, "three.npz", problem="max-min")
    np.testing.assert_allclose(found["utility"][0], alone["utility"][0], rtol=1e-9)
    least = solve(tmp_path, "blocked.npz", "--drop-blocked", "--sinr-target-db", "3", problem="min-power", power="")
    assert least["status"][0] == 0 and least["status"][1] == 2 and (least["W"][0, :, 1] == 0).all()
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "blocked.npz"), str(tmp_path / "out.npz"), "--json"]) == 0
    np.testing.assert_allclose(said(capsys)["mean_utility"], np.nanmean(least["utility"]), rtol=1e-6)
    assert "drop-blocked" in refused(tmp_path, "blocked.npz", capsys, "--drop-blocked")


def test_a_limit_for_each_link(tmp_path, capsys):
    G = np.abs(gaussian(5, 10, 10)) ** 2
    np.savez(tmp_path / "links.npz", G=G, noise=0.1, p_max=np.ones(10))
    assert "p_max_transmitter" in refused(tmp_path, "links.npz", capsys, noise="", power="")
    limits = np.linspace(0.5, 2, 10)
    np.savez(tmp_path / "each.npz", G=G, noise=0.1, p_max_transmitter=limits)
    found = solve(tmp_path, "each.npz", noise="", power="")
    assert (found["p"] <= limits * (1 + 1e-9)).all() and (found["p"] > 0.99 * limits).any()
    one = solve(tmp_path, "each.npz", "--p-max-transmitter", "0.25", noise="", power="")
    assert (one["p"] <= 0.25 * (1 + 1e-9)).all()
    np.savez(tmp_path / "both.npz", G=G, noise=0.1, p_max_transmitter=limits, p_max=1.0)
    assert (solve(tmp_path, "both.npz", noise="", power="")["p"].sum(-1) <= 1 + 1e-6).all()
    np.savez(tmp_path / "negative.npz", G=G, noise=0.1, p_max_transmitter=-limits)
    assert "p_max_transmitter must be non-negative" in refused(tmp_path, "negative.npz", capsys, noise="", power="")
    cells = gaussian(2, 3, 3, 4)
    np.savez(tmp_path / "cells.npz", H=cells, noise=0.1, p_max_transmitter=np.array([1.0, 2.0, 0.0]))
    W = solve(tmp_path, "cells.npz", noise="", power="")["W"]
    assert (W[..., 2] == 0).all() and (np.sum(np.abs(W) ** 2, 1) <= [1 + 1e-9, 2 + 1e-9, 0]).all()


def test_noise_of_every_instance_broadcasts_over_users(tmp_path, capsys):
    noise = np.array([[0.1], [0.2], [0.3], [0.4]])
    np.savez(tmp_path / "column.npz", H=H, noise=noise)
    found = solve(tmp_path, "column.npz", noise="")
    np.savez(tmp_path / "full.npz", H=H, noise=np.repeat(noise, 3, 1))
    np.testing.assert_allclose(found["rate"], solve(tmp_path, "full.npz", noise="")["rate"], rtol=1e-12)
    np.savez(tmp_path / "flat.npz", H=H, noise=noise[:, 0])
    assert "[B, 1]" in refused(tmp_path, "flat.npz", capsys, noise="")


def test_sinr_target_of_zero(tmp_path):
    np.savez(tmp_path / "zero.npz", H=H, sinr_target=np.array([0.0, 1.0, 1.0]))
    found = solve(tmp_path, "zero.npz", problem="min-power", power="")
    assert (found["status"] == 0).all() and (found["W"][..., 0] == 0).all()
    np.testing.assert_allclose(found["sinr"][:, 1:], 1, rtol=1e-6)


def test_exact_conversions_are_made(tmp_path):
    G = np.random.default_rng(0).integers(1, 9, (3, 4, 4))  # equal gains make equal optima: compared by utility
    expected = None
    for dtype in (np.int32, np.uint8, np.float64, np.float16, np.float32):
        np.savez(tmp_path / "gains.npz", G=G.astype(dtype))
        utility = solve(tmp_path, "gains.npz")["utility"]
        expected = utility if expected is None else expected
        np.testing.assert_allclose(utility, expected, rtol=1e-4)
    np.savez(tmp_path / "weights.npz", H=H, weights=np.array([True, False, True]))
    assert (solve(tmp_path, "weights.npz")["rate"][:, 1] < 1e-6).all()


def test_noise_below_single_precision_is_rejected(tmp_path, capsys):
    np.savez(tmp_path / "faint.npz", H=H.astype(np.complex64) * np.float32(1e-20), noise=1e-50)
    assert "--precision 64" in refused(tmp_path, "faint.npz", capsys, noise="")
    assert (solve(tmp_path, "faint.npz", "--precision", "64", noise="")["rate"] > 0).any()


def test_unknown_keys_are_reported(tmp_path, capsys):
    np.savez(tmp_path / "extra.npz", H=H, speed=3.0)
    solve(tmp_path, "extra.npz")
    assert any("'speed'" in note for note in said(capsys)["notes"])
    np.savez(tmp_path / "slip.npz", H=H, H_est=H)
    assert "did you mean 'H_estimate'" in refused(tmp_path, "slip.npz", capsys)


def test_links_without_a_direct_gain_are_reported(tmp_path, capsys):
    np.savez(tmp_path / "none.npz", G=(1 - np.eye(3))[None])
    solve(tmp_path, "none.npz")
    assert any("no link has a direct gain" in note for note in said(capsys)["notes"])


def test_errors_name_settings_as_given_by_the_user(tmp_path, capsys):
    np.savez(tmp_path / "plain.npz", H=H)
    sentence = refused(
        tmp_path, "plain.npz", capsys, "--set", "gradient=implicit", "--method", "duality", problem="max-min"
    )
    assert "setting of duality" in sentence
    assert "checkpoint" in refused(
        tmp_path, "plain.npz", capsys, "--method", "multipliers", "--set", "weights=a.safetensors"
    )


def test_evaluate_reads_options_from_the_solution(tmp_path, capsys):
    np.savez(tmp_path / "odd.npz", channels=np.stack([H.real, H.imag]).transpose(0, 3, 1, 2))
    solve(tmp_path, "odd.npz", "--key", "channels", "--axes", "NBK", "--real-imag", "0")
    summary = said(capsys)
    assert main(["evaluate", str(tmp_path / "odd.npz"), str(tmp_path / "out.npz"), "--json"]) == 0
    np.testing.assert_allclose(said(capsys)["mean_utility"], summary["mean_utility"], rtol=1e-9)


def test_sensing_streams_are_stored(tmp_path, capsys):
    """W has a column more than there are users: it interferes, and carries nothing."""
    W = gaussian(4, 8, 4) / 8
    np.savez(tmp_path / "plain.npz", H=H)
    np.savez(tmp_path / "beams.npz", W=W)
    np.savez(tmp_path / "order.npz", W=W[..., [3, 0, 1, 2]], stream_user=np.array([-1, 0, 1, 2]))
    network = Network.broadcast(torch.as_tensor(H), 0.1, sensing_streams=1)
    expected = network.rate(torch.as_tensor(W)).sum(-1).mean().item()
    for name in ("beams.npz", "order.npz"):
        arguments = ["evaluate", str(tmp_path / "plain.npz"), str(tmp_path / name), "--noise", "0.1", "--p-max", "9"]
        assert main([*arguments, "--json"]) == 0
        np.testing.assert_allclose(said(capsys)["mean_sum_rate"], expected, rtol=1e-9)
