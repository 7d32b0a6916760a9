"""Channels from a file: its rows in order, from a row that depends on the seed."""

import numpy as np
import pytest
import torch

from beamforge import ChannelFileError
from beamforge.scenarios import Recorded, scenario


@pytest.fixture
def path(tmp_path):
    generator = np.random.default_rng(0)
    H = (generator.standard_normal((5, 2, 3)) + 1j * generator.standard_normal((5, 2, 3))).astype(np.complex64)
    file = tmp_path / "five.npz"
    np.savez(file, H=H, noise=np.float32(0.1), p_max=np.float32(2.0), weights=np.arange(10.0).reshape(5, 2))
    return str(file)


def rows(instance, path):
    """The rows of the file that a batch holds."""
    H = torch.as_tensor(np.load(path)["H"])
    return [int((H - one[0]).abs().sum((1, 2)).argmin()) for one in instance.truth.H]


def test_rows_are_cyclic_and_come_with_their_context(path):
    whole = Recorded(path).sample(12, seed=3)
    found = rows(whole, path)
    assert found == [(found[0] + i) % 5 for i in range(12)]
    for row, weights in zip(found, whole.context["weights"], strict=True):
        assert weights.tolist() == [2.0 * row, 2.0 * row + 1]


def test_chunks_equal_parts_of_the_whole(path):
    whole = Recorded(path).sample(9, seed=7)
    pieces = [Recorded(path).sample(count, seed=7, first=first) for first, count in ((0, 2), (2, 6), (8, 1))]
    assert torch.equal(torch.cat([piece.truth.H for piece in pieces]), whole.truth.H)


def test_seeds_start_at_different_rows(path):
    assert {rows(Recorded(path).sample(1, seed=seed), path)[0] for seed in range(40)} == set(range(5))


def test_precision_is_as_requested_and_a_missing_file_raises(path):
    assert scenario("recorded", path=path).sample(1, dtype=torch.complex128).truth.H.dtype == torch.complex128
    with pytest.raises(ChannelFileError, match=r"nowhere\.npz"):
        Recorded("nowhere.npz").sample(1)
