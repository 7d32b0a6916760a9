"""Both kinds of layer: what they begin with, and the symmetries that each of them has and has not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.learned.l2o.ascent import Received, lmmse
from beamforge.learned.l2o.coordinate_layer import CoordinateLayer, joined, split
from beamforge.learned.l2o.invariant_layer import InvariantLayer
from beamforge.learned.l2o.masks import Masks, applied

USERS, ANTENNAS, SIZE = 4, 5, 6


def channels(users=USERS, antennas=ANTENNAS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 5 * torch.randn(3, users, antennas, dtype=torch.complex128, generator=generator)


def seeded(kind, *arguments, std=0.3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = kind(*arguments).double()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter += std * torch.randn(parameter.shape, dtype=torch.float64)
    return layer


def through(layer, H):
    masks = Masks.of(H)
    W = lmmse(H, masks.users)
    with torch.no_grad():
        return layer(H, 1.5 * H, W, torch.ones_like(H.real[..., 0]), masks)


def test_an_untrained_layer_of_invariants_prices_the_auxiliary_rows_and_leaves_the_beams():
    H = channels()
    auxiliary, W, length = through(InvariantLayer(8, 2, 4).double(), H)
    before = lmmse(H, Masks.of(H).users)
    assert torch.equal(W, before) and (length == 1).all()
    prices = Received.of(H, before).prices(torch.ones(3, USERS, dtype=torch.float64)).numpy()
    gains = (abs(auxiliary.numpy() / H.numpy()) ** 2)[..., 0]
    np.testing.assert_allclose(gains / gains.sum(-1, keepdims=True), prices / prices.sum(-1, keepdims=True), rtol=1e-3)


def test_relabelled_users_and_antennas_have_relabelled_answers():
    layer, H = seeded(InvariantLayer, 8, 2, 4), channels()
    users, antennas = torch.tensor([2, 0, 3, 1]), torch.tensor([4, 2, 0, 1, 3])
    auxiliary, W, length = through(layer, H)
    moved = through(layer, H[:, users][:, :, antennas])
    torch.testing.assert_close(moved[0], auxiliary[:, users][:, :, antennas])
    torch.testing.assert_close(moved[1], W[:, antennas][:, :, users])
    torch.testing.assert_close(moved[2], length[:, users])
    assert (W - lmmse(H, Masks.of(H).users)).abs().max() > 1e-3, "it does something"


def test_phases_of_users_turn_no_power():
    layer, H = seeded(InvariantLayer, 8, 2, 4), channels()
    turned = torch.polar(torch.ones(4, 1).double(), torch.arange(4.0).double().unsqueeze(-1)) * H
    (_, W, _), (_, moved, _) = through(layer, H), through(layer, turned)
    torch.testing.assert_close((turned @ moved).abs(), (H @ W).abs())


def test_the_size_of_a_padded_instance_changes_nothing_but_rounding():
    layer, H = seeded(InvariantLayer, 8, 2, 4), channels()
    wide = torch.nn.functional.pad(H, (0, 3, 0, 2))
    for small, large in zip(through(layer, H), through(layer, wide), strict=True):
        rows = large[:, : small.shape[1]] if small.ndim == 2 else large[:, : small.shape[1], : small.shape[2]]
        torch.testing.assert_close(rows, small)


def by_hand(layer, H, auxiliary, W):
    """The published layer in NumPy, one instance without masks, from its weights."""

    def norm(x, module):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + module.eps) * module.weight.numpy() + module.bias.numpy()

    def gelu(x):
        return torch.nn.functional.gelu(torch.as_tensor(x)).numpy()

    def linear(x, module):
        return x @ module.weight.numpy().T + (0 if module.bias is None else module.bias.numpy())

    scale = np.sqrt((abs(H) ** 2).mean())
    pair, added = [auxiliary / scale, W.T * np.sqrt(layer.size)], [0, 0]
    for axis in range(2):
        turned = [m if axis == 0 else m.T for m in pair]
        rows = np.concatenate([np.concatenate([m.real, m.imag], -1) for m in turned])
        x = norm(linear(rows, layer.embed[axis][0]), layer.embed[axis][1])
        attention = layer.attention[axis]
        asked = linear(x, attention.ask).reshape(len(x), 3, attention.heads, attention.depth)
        heard = []
        for head in range(attention.heads):
            query, key, value = asked[:, :, head].swapaxes(0, 1)
            logits = np.exp(query @ key.T / np.sqrt(attention.depth))
            heard.append(logits / logits.sum(-1, keepdims=True) @ value)
        first, _, second = layer.aggregate[axis]
        y = linear(gelu(linear(np.concatenate(heard, -1), first)), second)
        y = y[:, : layer.size] + 1j * y[:, layer.size :]
        for index, part in enumerate((y[: layer.size], y[layer.size :])):
            added[index] = added[index] + (part if axis == 0 else part.T)
    found = []
    for matrix, extra, (first, into, _, out) in zip(pair, added, layer.out, strict=True):
        z = matrix + extra
        rows = linear(gelu(linear(norm(np.concatenate([z.real, z.imag], -1), first), into)), out)
        found.append(z + rows[:, : layer.size] + 1j * rows[:, layer.size :])
    return found[0] * scale, found[1].T


def test_the_published_layer_is_what_its_equations_say():
    layer, H = seeded(CoordinateLayer, SIZE, 8, 2, 4).requires_grad_(False), channels(SIZE, SIZE)
    auxiliary, W, _ = through(layer, H)
    for i in range(3):
        before = lmmse(H, Masks.of(H).users)[i].numpy()
        one, other = by_hand(layer, H[i].numpy(), 1.5 * H[i].numpy(), before)
        np.testing.assert_allclose(auxiliary[i].numpy(), one, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(W[i].numpy(), other, rtol=1e-8, atol=1e-9)


def test_the_published_layer_is_equivariant_in_neither_axis():
    layer, H = seeded(CoordinateLayer, SIZE, 8, 2, 4), channels(SIZE, SIZE)
    order = torch.arange(SIZE).roll(1)
    _, W, _ = through(layer, H)
    for moved, expected in ((H[:, order], W[..., order]), (H[:, :, order], W[:, order])):
        assert (through(layer, moved)[1] - expected).abs().max() > 1e-2


@pytest.mark.parametrize("layer", [(InvariantLayer, 8, 2, 4), (CoordinateLayer, SIZE, 8, 2, 4)])
def test_what_stands_in_masked_places_changes_no_bit(layer):
    layer, H = seeded(*layer).float(), channels(SIZE, SIZE).to(torch.complex64)
    masks = Masks(torch.arange(SIZE).expand(3, -1) != 2, torch.arange(SIZE).expand(3, -1) < 4)
    found = []
    for noise in (0.0, 1e3):
        seen = applied(torch.where(masks.samples(), H, noise), masks)
        W = lmmse(seen, masks.users)
        with torch.no_grad():
            auxiliary, W, _ = layer(seen, seen, W, torch.ones(3, SIZE), masks)
        found.append((applied(auxiliary, masks), applied(W.mT, masks)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert all(torch.isfinite(matrix.abs()).all() for matrix in found[0])


def test_splitting_is_undone_by_joining():
    H = channels()
    assert torch.equal(joined(split(H)), H)
