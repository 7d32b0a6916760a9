"""Channel files: every format and key means the same instance, however it is cut; anything else is one sentence."""

from __future__ import annotations

import contextlib
import tracemalloc

import h5py
import numpy as np
import pytest
import torch
from channel_files import FORMATS, broadcast, hostile, normal, write, write_mat5, write_mat73
from hypothesis import given, settings
from hypothesis import strategies as st

from beamforge.core.errors import ChannelFileError
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.io.channel_writing import channel_arrays, shared_arrays, write_channels
from beamforge.io.channels import ChannelFile
from beamforge.scenarios import scenario

RNG = np.random.default_rng(5)


def semidefinite(*shape):
    """Covariances [*shape, N, N] of rank two."""
    a = normal(*shape, 2, seed=2)
    return a @ a.conj().swapaxes(-1, -2)


B, T, K, N = 6, 2, 3, 4
CASES = {
    "broadcast": broadcast(weights=RNG.random((B, K)), sinr_target=np.array([1.0, 2.0, 3.0])),
    "limits of antennas": broadcast(p_max_antenna=RNG.random(N) + 0.1),
    "one instance": broadcast(B=1, noise=RNG.random(K) + 0.1),
    "one user": broadcast(K=1, weights=RNG.random((B, 1))),
    "as many users as instances": broadcast(K=6, noise=RNG.random((6, 6)) + 0.1, weights=RNG.random(6)),
    "single precision": broadcast(dtype=np.complex64, noise=RNG.random((B, K)) + 0.1),
    "interference": {"H": normal(B, K, K, N), "noise": 0.1, "p_max": np.array([1.0, 2.0, 3.0])},
    "cells": {
        "H": normal(B, T, K, N),
        "noise": RNG.random((B, K)) + 0.1,
        "p_max": RNG.random((B, T)) + 0.1,
        "p_max_antenna": RNG.random((T, N)) + 0.1,
        "serving": np.array([1, 0, 1]),
    },
    "gains": {"G": RNG.random((B, K, K)), "noise": 0.05, "p_max": 2.0},
    "pilots": broadcast(
        H_estimate=normal(B, K, N, seed=1), csi_quality=RNG.random((B, K)), covariance=semidefinite(B, K, N)
    ),
    "sensing": broadcast(target_angles=RNG.random((B, 2)), target_gain=normal(B, 2, seed=3)),
    "positions": broadcast(user_position=RNG.random((B, K, 3))),
}


def expected(arrays):
    """The instance that arrays mean, written from the conventions and from nothing in the package."""
    main = arrays["H"] if "H" in arrays else np.swapaxes(arrays["G"], 1, 2)[..., None] ** 0.5 + 0j
    H = main if main.ndim == 4 else main[:, None]
    B, T, K, N = H.shape
    real = H.real.dtype
    noise = np.broadcast_to(arrays["noise"], (B, K)).astype(real)
    serving = arrays.get("serving", np.arange(K) if T > 1 else np.zeros(K, int))
    context = {}
    for name, value in arrays.items():
        if name in ("weights", "sinr_target"):
            value = np.broadcast_to(value, (B, K))
        elif name == "p_max" and T > 1 and "G" not in arrays:
            name, value = "p_max_transmitter", np.broadcast_to(value, (B, T))
        elif name == "p_max":
            value = np.broadcast_to(value, (B,))
        elif name == "p_max_antenna":
            value = np.broadcast_to(value, (B, T, N))
        elif name in ("H", "G", "noise", "serving", "H_estimate"):
            continue
        context[name] = value.astype(H.dtype if np.iscomplexobj(value) else real)
    return H, noise, np.broadcast_to(serving, (B, K)), context


def same(instance, arrays, rows=slice(None)):
    H, noise, serving, context = expected(arrays)
    np.testing.assert_allclose(instance.truth.H, H[rows], rtol=1e-15)
    assert instance.truth.H.dtype == torch.from_numpy(H).dtype
    np.testing.assert_array_equal(instance.truth.noise, noise[rows])
    np.testing.assert_array_equal(instance.truth.streams.transmitter, serving[rows])
    assert instance.context.keys() == context.keys()
    for name, value in context.items():
        np.testing.assert_array_equal(instance.context[name], value[rows], err_msg=name)
        assert instance.context[name].dtype == torch.from_numpy(value).dtype
    if "H_estimate" in arrays:
        np.testing.assert_array_equal(instance.observation.network.H[:, 0], arrays["H_estimate"][rows])
    else:
        assert instance.observation.network is instance.truth


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_all_formats_give_the_same_channels(case, form, tmp_path):
    with ChannelFile(write(tmp_path, CASES[case], form)) as file:
        same(file.read(), CASES[case])
        same(file.read(1 % file.count, 1), CASES[case], slice(1 % file.count, 1 % file.count + 1))


@pytest.mark.parametrize("form", FORMATS)
def test_meta_is_read_from_every_format(form, tmp_path):
    arrays = broadcast(meta='{"scenario": "café", "seed": 3}')
    with ChannelFile(write(tmp_path, arrays, form)) as file:
        assert file.meta == {"scenario": "café", "seed": 3}


@settings(max_examples=30, deadline=None)
@given(
    form=st.sampled_from(list(FORMATS)),
    case=st.sampled_from(list(CASES)),
    cuts=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=4),
)
def test_reading_a_range_of_instances(form, case, cuts, tmp_path_factory):
    with ChannelFile(write(tmp_path_factory.mktemp("cut"), CASES[case], form)) as file:
        for first, count in cuts:
            if first < file.count:
                same(file.read(first, count), CASES[case], slice(first, first + count))


@pytest.mark.parametrize("form", ["npz", "npz-compressed", "h5", "mat-v7.3"])
def test_memory_is_that_of_a_piece(form, tmp_path):
    path = write(tmp_path, broadcast(B=20_000, K=4, N=16), form)  # 20 MB
    with ChannelFile(path) as file:
        tracemalloc.start()
        file.read(12_345, 100)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4e6


def test_hash_does_not_depend_on_chunks(tmp_path, monkeypatch):
    hashes = set()
    for form, size in [("npz", 1), ("npz", 10**6), ("npz-compressed", 1000), ("npz-column-major", 500)]:
        monkeypatch.setattr("beamforge.io.channels.CHUNK_BYTES", size)
        with ChannelFile(write(tmp_path, CASES["cells"], form, name=f"{form}{size}")) as file:
            hashes.add(file.scan())
    assert len(hashes) == 1
    changed = CASES["cells"] | {"noise": np.nextafter(CASES["cells"]["noise"], 1)}
    with ChannelFile(write(tmp_path, changed)) as file:
        assert file.scan() not in hashes


def test_precision_of_channels_or_as_requested(tmp_path):
    path = write(tmp_path, CASES["single precision"])
    with ChannelFile(path) as file:
        assert file.read().context["p_max"].dtype == torch.float32
        wide = file.read(dtype=torch.complex128)
    assert wide.truth.H.dtype == torch.complex128 and wide.context["p_max"].dtype == torch.float64


def test_given_values_override_the_file(tmp_path):
    path = write(tmp_path, broadcast(noise=-1.0, sinr_target=np.ones((9, 9))))
    with ChannelFile(path, noise=0.5, p_max=7.0, sinr_target=2.0) as file:
        instance = file.read()
    assert instance.truth.noise.unique().tolist() == [0.5]
    assert instance.context["p_max"].tolist() == [7.0] * 6
    assert instance.context["sinr_target"].unique().tolist() == [2.0]


def test_beams_are_evaluated_on_the_estimate_without_true_channels(tmp_path):
    arrays = broadcast()
    arrays["H_estimate"] = arrays.pop("H")
    with ChannelFile(write(tmp_path, arrays)) as file:
        assert file.main == "H_estimate"
        instance = file.read()
    assert instance.observation.network is instance.truth
    np.testing.assert_array_equal(instance.truth.channel, arrays["H_estimate"])


@pytest.mark.parametrize("p_max", [2.0, np.array([2.0]), np.full(B, 2.0), np.full((B, 1), 2.0)])
def test_explicit_single_transmitter_is_a_broadcast_channel(p_max, tmp_path):
    H = normal(B, 1, K, N)
    with ChannelFile(write(tmp_path, {"H": H, "noise": 0.1, "p_max": p_max})) as file:
        assert file.read().context["p_max"].tolist() == [2.0] * B
        assert file.read(1, 2).context["p_max"].tolist() == [2.0] * 2


def test_dataset_without_shape_is_ignored(tmp_path):
    with h5py.File(tmp_path / "channels.h5", "w") as file:
        file["H"], file["noise"] = normal(B, K, N), h5py.Empty("f8")
    with pytest.raises(ChannelFileError, match="noise must be given"):
        ChannelFile(tmp_path / "channels.h5")


FAULTS = {name: case for name, *case in hostile() if name != "no power"}  # which is the problem's affair


@pytest.mark.parametrize(("content", "words"), FAULTS.values(), ids=FAULTS)
def test_errors_are_one_sentence(content, words, tmp_path):
    path = tmp_path / "channels.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(ChannelFileError) as caught, ChannelFile(path) as file:
        file.scan()
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("form", ["h5", "mat-v5", "mat-v7.3"])
def test_invalid_numbers_are_detected_in_every_format(form, tmp_path):
    arrays = broadcast()
    arrays["H"][4, 1, 2] = np.nan
    with ChannelFile(write(tmp_path, arrays, form)) as file, pytest.raises(ChannelFileError, match="instance 4"):
        file.read(3, 2)


@settings(max_examples=60, deadline=None)
@given(form=st.sampled_from(list(FORMATS)), share=st.floats(0, 0.999))
def test_truncated_file_is_rejected(form, share, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("cut"), broadcast(weights=np.ones((6, 3))), form)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ChannelFileError), ChannelFile(path) as file:
        file.scan()


@settings(max_examples=100, deadline=None)
@given(form=st.sampled_from(["npz", "npz-compressed", "mat-v5"]), place=st.floats(0, 0.9999), flip=st.integers(1, 255))
def test_damaged_byte_is_detected_or_harmless(form, place, flip, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("flip"), broadcast(B=2, K=2, N=2), form)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= flip
    path.write_bytes(data)
    with contextlib.suppress(ChannelFileError), ChannelFile(path) as file:
        file.scan()


@pytest.mark.parametrize("name", ["channels.txt", "channels", "absent.npz", "folder.npz"])
def test_other_files_are_rejected(name, tmp_path):
    (tmp_path / "channels.txt").write_text("1 2 3")
    (tmp_path / "channels").write_text("1 2 3")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ChannelFileError, match=name):
        ChannelFile(tmp_path / name)


def test_pickles_are_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("pickle.load", lambda *_, **__: pytest.fail("unpickled"))
    np.savez(tmp_path / "a.npz", **broadcast(), meta=np.array({"a": 1}, object))
    with pytest.raises(ChannelFileError, match="meta must be numbers or text, got objects"):
        ChannelFile(tmp_path / "a.npz")


@pytest.mark.parametrize("writer", [write_mat5, write_mat73])
def test_matlab_ambiguities_are_rejected_or_resolved(writer, tmp_path):
    writer(tmp_path / "one.mat", {"H": normal(6, 3), "noise": 0.1})
    with pytest.raises(ChannelFileError, match=r"H must be .*\(6, 3\)"):
        ChannelFile(tmp_path / "one.mat")
    column = {"weights": np.array([[1.0], [2.0], [3.0]]), "serving": np.array([[1.0], [0.0], [1.0]])}
    writer(tmp_path / "two.mat", {"H": normal(4, 2, 3, 5), "noise": 0.1, **column})
    with ChannelFile(tmp_path / "two.mat") as file:
        instance = file.read()
    assert instance.context["weights"][3].tolist() == [1, 2, 3]
    assert instance.truth.streams.transmitter[3].tolist() == [1, 0, 1]


def test_matlab_workspace_with_other_variables(tmp_path):
    write_mat73(tmp_path / "a.mat", broadcast())
    with h5py.File(tmp_path / "a.mat", "r+") as file:
        file.create_group("settings")["fs"] = 1.0
        file.create_group("#refs#")
        file.create_dataset("cells", data=np.array([file.ref], h5py.ref_dtype))
        file.create_dataset("comment", data=np.zeros(2, np.uint64)).attrs["MATLAB_empty"] = np.int32(1)
    with ChannelFile(tmp_path / "a.mat") as file:
        same(file.read(), broadcast())


# --- writing ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("name", ["rayleigh", "cell", "interference", "weak", "strong", "upa", "pilot-csi"])
def test_written_channels_are_read_back(name, suffix, tmp_path):
    instance = scenario(name).sample(3, seed=4)
    write_channels(tmp_path / f"a{suffix}", instance, seed=4)
    with ChannelFile(tmp_path / f"a{suffix}") as file:
        found = file.read()
        assert file.meta == {"seed": 4}
        assert file.main == ("G" if name in ("weak", "strong") else "H")
    for one, other in [(found.truth, instance.truth), (found.observation.network, instance.observation.network)]:
        torch.testing.assert_close(one.H, other.H, rtol=1e-6 if file.main == "G" else 0, atol=0)
        assert torch.equal(one.noise, other.noise) and torch.equal(one.streams.transmitter, other.streams.transmitter)
    assert found.context.keys() == instance.context.keys()
    for key, value in instance.context.items():
        assert torch.equal(found.context[key], value), key


def test_different_limits_are_stored_per_instance():
    network = Network.broadcast(torch.ones(2, 2, 2) + 0j, torch.tensor([[1.0, 2.0], [1.0, 1.0]]))
    arrays = channel_arrays(Instance.perfect(network, p_max=torch.tensor([1.0, 1.0])))
    assert set(arrays) == {"H", "noise", "p_max"} and shared_arrays(arrays) == {"p_max": 1.0}


def test_failure_leaves_no_file(tmp_path, monkeypatch):
    instance = scenario("rayleigh").sample(2)
    with monkeypatch.context() as patch:
        patch.setattr("numpy.savez", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            write_channels(tmp_path / "a.npz", instance)
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            write_channels(tmp_path / "a.h5", instance)
    assert list(tmp_path.iterdir()) == []


def test_unsupported_contents_are_rejected(tmp_path):
    network = Network.interference(normal_tensor(2, 3, 3, 4), 1.0)
    with pytest.raises(ChannelFileError, match="limit of each transmitter"):
        write_channels(tmp_path / "a.npz", Instance.perfect(network, p_max=torch.ones(2, dtype=torch.float64)))
    assert list(tmp_path.iterdir()) == []


def normal_tensor(*shape):
    return torch.from_numpy(normal(*shape))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda R: R - 2 * np.eye(N) * np.trace(R), "an eigenvalue of -"),
        (lambda R: R + np.triu(np.ones((N, N)), 1), "a matrix that is not Hermitian"),
    ],
)
def test_a_covariance_must_be_one(tmp_path, spoil, words):
    R = semidefinite(B, K, N)
    R[1, 2] = spoil(R[1, 2])
    path = write(tmp_path, broadcast(covariance=R))
    with ChannelFile(path) as channels:
        channels.read(0, 1)
        with pytest.raises(ChannelFileError, match=rf"covariance must be .*semidefinite, got {words}.* in instance 1"):
            channels.read()
    path = write(tmp_path, broadcast(covariance=0 * R))
    with ChannelFile(path) as channels:
        assert (channels.read().context["covariance"] == 0).all()
