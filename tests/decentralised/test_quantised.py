"""Messages of a few bits, against NumPy's view of the nearest code, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stations import Polite, question

from beamforge.core.errors import ConfigError
from beamforge.decentralised.backhaul import SharedMemory
from beamforge.decentralised.launch import apart
from beamforge.decentralised.quantised import Quantised


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_number_becomes_the_nearest_code(bits, logarithmic, count):
    rng = np.random.default_rng(bits + count)
    size = 10 ** rng.uniform(-3, 3, (count, 3, 3))
    sent = size * rng.choice([-1, 0, 1], size.shape, p=[0.4, 0.1, 0.5])
    low, high, most = 1e-2, 1e2, 2 ** (bits - 1) - 1
    backhaul = Quantised(SharedMemory(), bits, low, high, logarithmic)
    heard = backhaul.exchange(torch.from_numpy(sent)).numpy()
    assert backhaul.scalars == 6 and backhaul.bits == bits * 6 * count
    levels = np.geomspace(low, high, most) if logarithmic else np.arange(1, most + 1) * high / most
    for b, s, j in np.ndindex(heard.shape):
        x = sent[b, j, s]
        if s == j:
            assert heard[b, s, j] == 0
        elif logarithmic:
            near = levels[np.abs(np.log(levels) - np.log(max(abs(x), low))).argmin()] if abs(x) >= low / 2 else 0
            np.testing.assert_allclose(heard[b, s, j], np.sign(x) * near, rtol=1e-9)
        else:
            near = np.concatenate([[0], levels])[np.abs(np.concatenate([[0], levels]) - abs(x)).argmin()]
            np.testing.assert_allclose(heard[b, s, j], np.sign(x) * near, rtol=1e-9)


def test_what_is_no_number_is_said_as_zero_or_as_the_most():
    sent = torch.tensor([[[0.0, torch.nan, torch.inf]] * 3])
    heard = Quantised(SharedMemory(), 8, 1e-3, 1e3).exchange(sent)
    torch.testing.assert_close(heard, torch.tensor([[[0.0, 0, 0], [0, 0, 0], [1e3, 1e3, 0]]]))


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_processes_send_the_same_bits(bits):
    problem, instance = question(count=3)
    method = Polite()
    exact = method.solve(problem, instance).W
    method.message_bits = bits
    together = method.solve(problem, instance)
    with apart(method, 3) as operator:
        alone = operator.solve(problem, instance)
    torch.testing.assert_close(alone.W, together.W, rtol=1e-9, atol=1e-9)
    assert torch.equal(alone.info["bits"], together.info["bits"])
    if bits != 4:  # where two instances share a byte, the last may be alone in it
        assert alone.info["bits"].tolist() == [18 * bits] * 3
    assert 0 < (together.W - exact).abs().max() < {4: 2.0, 8: 0.5, 16: 2e-3}[bits]


def test_refusals():
    with pytest.raises(ConfigError, match="bits of a message must be 4, 8 or 16, got 5"):
        Quantised(SharedMemory(), 5)
    with pytest.raises(ConfigError, match="bounds of a message must be 0 < low < high, got 2 and 1"):
        Quantised(SharedMemory(), 8, 2.0, 1.0)
