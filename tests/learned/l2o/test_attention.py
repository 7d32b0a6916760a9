"""Attention over those who are there, against a softmax in NumPy over them alone."""

from __future__ import annotations

import numpy as np
import torch

from beamforge.learned.l2o.attention import MaskedAttention


def made(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MaskedAttention(width=6, heads=2, depth=3).double()


def test_those_who_are_there_hear_what_a_smaller_set_would():
    attention = made()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(1, 5, 6, dtype=torch.float64, generator=generator)
    bias = torch.randn(1, 2, 5, 5, dtype=torch.float64, generator=generator)
    there = torch.tensor([[True, False, True, True, False]])
    with torch.no_grad():
        found = attention(tokens, there, bias)[0].numpy()
    places = np.flatnonzero(there[0].numpy())
    x, weight = tokens[0].numpy()[places], attention.ask.weight.detach().numpy()
    query, key, value = (x @ weight.T).reshape(3, 3, 2, 3).transpose(1, 2, 0, 3)  # [part, head, token, number]
    logits = query @ key.swapaxes(-1, -2) / np.sqrt(3) + bias[0].numpy()[:, places][:, :, places]
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = (share @ value).transpose(1, 0, 2).reshape(3, 6)
    np.testing.assert_allclose(found[places], expected, rtol=1e-10)
    assert (np.delete(found, places, 0) == 0).all()


def test_what_masked_tokens_hold_changes_no_bit():
    attention = made().float()
    tokens = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2))
    there = torch.tensor([[True, True, False, True], [False] * 4])
    other = torch.where(there.unsqueeze(-1), tokens, 1e3)
    with torch.no_grad():
        one, two = attention(tokens, there), attention(other, there)
    assert torch.equal(one, two) and (one[1] == 0).all(), "nobody there is no row of NaN"
