"""Terms of hybrid beamforming: codebooks, outage over a batch, power of the digital beams."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.core.beams import Beams, Factors
from beamforge.core.constraints import SinrAtLeast, TotalPower
from beamforge.core.errors import ConfigError, ShapeError
from beamforge.core.evaluate import evaluate
from beamforge.core.hybrid import AnalogCodebook, BasebandPower, MeanSinrOutage, dft_codebook
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.utilities import TransmitPower
from tests.oracles import channels


def network(batch=5, users=3, antennas=4):
    return Network.broadcast(torch.from_numpy(channels(batch, users, antennas)), noise=0.1)


def factors(batch=5, seed=1):
    codebook = dft_codebook(4)
    index = torch.tensor([3, 0, 2])
    digital = torch.from_numpy(channels(batch, 3, 3, seed=seed))
    power = torch.from_numpy(np.random.default_rng(2).uniform(size=(batch, 3)))
    return Factors(codebook[:, index].expand(batch, -1, -1), digital, power, index.expand(batch, -1))


def test_dft_beams_by_definition():
    book = dft_codebook(4, 2, oversampling=(2, 1)).numpy()
    assert book.shape == (8, 16)
    for c in range(8):
        for d in range(2):
            for m in range(4):
                for n in range(2):
                    phase = 2 * np.pi * (m * c / 8 + n * d / 2)
                    assert book[2 * m + n, 2 * c + d] == pytest.approx(np.exp(1j * phase) / np.sqrt(8))
    np.testing.assert_allclose(dft_codebook(4).mH @ dft_codebook(4), np.eye(4), atol=1e-14)


def test_default_codebook_on_any_default_device():
    with torch.device("meta"):
        limit = AnalogCodebook().bind(network())
    np.testing.assert_allclose(limit.codebook[3], dft_codebook(4))


def test_codewords_as_analog_beams():
    limit = AnalogCodebook().bind(network())
    hybrid = factors()
    found = limit.violation(None, Beams(hybrid.W, hybrid))
    np.testing.assert_allclose(found, 0, atol=1e-14)
    wrong = Factors(hybrid.analog.roll(1, -2), hybrid.digital, hybrid.power)
    assert (limit.violation(None, Beams(wrong.W, wrong)) < 1e-14).logical_not().all()
    assert (limit.violation(None, Beams(2 * hybrid.W, hybrid)) == 0.5).all()


def test_beams_without_factors_are_held_to_the_span_of_the_codebook():
    book = dft_codebook(4)[:, :2]
    limit = AnalogCodebook(book).bind(network())
    inside = book @ torch.from_numpy(channels(5, 2, 3, seed=3))
    np.testing.assert_allclose(limit.violation(None, Beams(inside)), 0, atol=1e-14)
    outside = inside + dft_codebook(4)[:, 3:]
    size = torch.linalg.vector_norm(outside, dim=-2).amin(-1)
    np.testing.assert_allclose(limit.violation(None, Beams(outside)), 1 / size, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda book: torch.cat([book, 0 * book[:, :1]], 1), "got one in column 4: leave it out"),
        (lambda book: torch.cat([book, 1j * book[:, 1:2]], 1), "got the same in columns 1 and 4: leave one out"),
        (lambda book: book[:3], "must broadcast to"),
        (lambda book: book * torch.nan, "finite"),
    ],
)
def test_bad_codebooks_are_refused(change, words):
    with pytest.raises(ShapeError, match=words):
        AnalogCodebook(change(dft_codebook(4))).bind(network())


def test_outage_is_the_share_of_users_below_their_target():
    given = network()
    W = torch.from_numpy(channels(5, 4, 3, seed=4))
    targets = torch.tensor([0.3, 0.0, 0.6], dtype=torch.float64)
    problem = Problem(TransmitPower(), (MeanSinrOutage(0.2, targets),))
    report = evaluate(problem, given, W)
    expected = np.zeros(5)
    for b in range(5):
        power = np.abs(given.channel[b].numpy() @ W[b].numpy()) ** 2
        for k in (0, 2):
            interference = power[k].sum() - power[k, k]
            expected[b] += (power[k, k] / (interference + 0.1) < targets[k].item()) / 2
    assert 0 < expected.mean() < 1
    np.testing.assert_allclose(report.figures["outage"], expected)
    np.testing.assert_allclose(report.violation["MeanSinrOutage"], expected / 0.2 - 1)
    assert report.feasible.all()  # the constraint is on the mean alone


def test_baseband_power():
    hybrid = factors()
    W = hybrid.digital.numpy() * np.sqrt(hybrid.power.numpy())[:, None]
    found = evaluate(Problem(BasebandPower()), network(), Beams(hybrid.W, hybrid))
    np.testing.assert_allclose(found.utility, (np.abs(W) ** 2).sum((-2, -1)))
    assert evaluate(Problem(BasebandPower()), network(), hybrid.W).utility.isnan().all()


def test_named_problem():
    plain = build_problem("hybrid-min-power", {"sinr_target": 2.0, "p_max": 3.0})
    assert type(plain.maximise) is TransmitPower
    assert [type(limit) for limit in plain.subject_to] == [SinrAtLeast, AnalogCodebook, TotalPower]
    other = build_problem("hybrid-min-power", {"sinr_target": 2.0, "outage": 0.1, "power": "baseband"})
    assert type(other.maximise) is BasebandPower and other.get(MeanSinrOutage).probability == 0.1
    with pytest.raises(ConfigError, match="sinr_target"):
        build_problem("hybrid-min-power", {})
    with pytest.raises(ConfigError, match="radiated or baseband"):
        build_problem("hybrid-min-power", {"sinr_target": 1.0, "power": "total"})
    with pytest.raises(ShapeError, match="below 1"):
        MeanSinrOutage(1.5, 1.0).bind(network())
