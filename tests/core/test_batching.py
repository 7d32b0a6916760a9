"""Trees of tensors: inverse operations are inverse, for every container that the library uses."""

from typing import NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from beamforge import Network
from beamforge.core import batching


class Pair(NamedTuple):
    real: Tensor
    complex: Tensor


def tree(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pair = Pair(
        torch.randn(size, 3, dtype=torch.float64, generator=generator),
        torch.randn(size, 2, 2, dtype=torch.complex128, generator=generator),
    )
    return {"pair": pair, "list": [pair.real * 2, None], "network": Network.broadcast(pair.complex, 1.0)}


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(batching.leaves(one), batching.leaves(other), strict=True))


@given(st.integers(1, 6), st.integers(0, 100))
def test_pack_and_unpack_are_inverse(size, seed):
    pair = tree(size, seed)["pair"]
    rows = batching.pack(pair)
    assert rows.shape == (size, 3 + 8)
    assert equal(batching.unpack(rows, pair), pair)


@given(st.sampled_from([(), (4,), (2, 3), (1, 2, 2)]))
def test_flatten_and_unflatten_are_inverse(shape):
    generator = torch.Generator().manual_seed(1)
    network = Network.broadcast(torch.randn(*shape, 2, 3, dtype=torch.complex64, generator=generator), 0.1)
    flat = batching.flatten(network, len(shape))
    assert flat.batch_shape == (max(1, torch.Size(shape).numel()),)
    assert equal(batching.unflatten(flat, shape), network)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
def test_put_undoes_take(places):
    whole, index = tree(6), torch.tensor(places)
    emptied = batching.tree_map(torch.zeros_like, whole)
    restored = batching.put(emptied, index, batching.take(whole, index))
    for leaf, original in zip(batching.leaves(restored), batching.leaves(whole), strict=True):
        assert torch.equal(leaf[index], original[index])
        others = [i for i in range(6) if i not in places]
        assert not leaf[others].any()


def test_where_chooses_whole_instances():
    one, other = tree(3, 1), tree(3, 2)
    chosen = batching.where(torch.tensor([True, False, True]), one, other)
    assert equal(batching.take(chosen, torch.tensor([0, 2])), batching.take(one, torch.tensor([0, 2])))
    assert equal(batching.take(chosen, torch.tensor([1])), batching.take(other, torch.tensor([1])))
