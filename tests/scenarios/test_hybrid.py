"""The scenario hybrid-outage: truth, estimate, quality, covariance and codebook."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.core.hybrid import dft_codebook
from beamforge.scenarios import UPA, FeedbackCSI, HybridOutage, PilotCSI


@pytest.mark.parametrize("users", [1, 2, 3, 4])
def test_pilots_and_codebook(users):
    found = HybridOutage(users=users, pilot_low_db=10.0, pilot_high_db=10.0).sample(3, seed=2)
    plain = PilotCSI(UPA(users=users), 10.0, 10.0).sample(3, seed=2)
    assert torch.equal(found.truth.H, plain.truth.H)
    assert torch.equal(found.observation.network.H, plain.observation.network.H)
    assert sorted(found.context) == ["codebook", "covariance", "csi_quality", "p_max", "sinr_target"]
    np.testing.assert_allclose(found.context["csi_quality"], 10, rtol=1e-6)
    expected = dft_codebook(8, 4, oversampling=(2, 1)).to(torch.complex64)
    assert all(torch.equal(each, expected) for each in found.context["codebook"])
    targets = found.context["sinr_target"]
    assert (targets >= 1).all() and (targets <= 10).all() and found.truth.users == users


def test_feedback_with_sample_covariance():
    found = HybridOutage(feedback=True, angular_spread_deg=5.0, samples=4).sample(3, seed=2)
    plain = FeedbackCSI(UPA(angular_spread_deg=5.0), 2, 4, 4).sample(3, seed=2)
    assert torch.equal(found.observation.network.H, plain.observation.network.H)
    assert torch.equal(found.context["covariance"], plain.context["covariance"])


@pytest.mark.parametrize("fields", [{"users": 0}, {"pilot_low_db": 30.0}, {"feedback": True, "beams_low": 0}])
def test_fields_out_of_range(fields):
    with pytest.raises(ConfigError):
        HybridOutage(**fields)
