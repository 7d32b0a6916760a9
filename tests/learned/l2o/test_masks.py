"""Who takes part: whoever has a channel, whatever stands in the places of the others."""

from __future__ import annotations

import torch

from beamforge.learned.l2o.masks import Masks, applied, padded


def test_users_and_antennas_without_a_channel_are_masked():
    H = torch.ones(2, 3, 4, dtype=torch.complex64)
    H[0, 1], H[1, :, 2] = 0, 0
    masks = Masks.of(H)
    assert masks.users.tolist() == [[True, False, True], [True] * 3]
    assert masks.antennas.tolist() == [[True] * 4, [True, True, False, True]]
    assert masks.active().tolist() == [2, 3]
    assert (masks.samples() == (H != 0)).all()
    assert Masks.of(0 * H).active().tolist() == [1, 1], "nothing is divided by zero"


def test_what_stands_in_masked_places_is_gone_even_where_it_is_no_number():
    H = torch.full((1, 2, 3), torch.nan)
    H[0, 0, :2] = 1.0
    masks = Masks(torch.tensor([[True, False]]), torch.tensor([[True, True, False]]))
    assert applied(H, masks).tolist() == [[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]


def test_padding_adds_masked_users_and_antennas():
    H = torch.ones(1, 2, 3, dtype=torch.complex64)
    masks = Masks.of(padded(H, 4))
    assert masks.users.tolist() == [[True, True, False, False]]
    assert masks.antennas.tolist() == [[True, True, True, False]]
