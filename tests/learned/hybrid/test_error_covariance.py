"""Virtual channels with error covariances: these by NumPy and by sampling, and beams that meet the virtual targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.core.named_problems import build_problem
from beamforge.learned.hybrid.error_covariance import HybridErrorGCN, error_covariance
from beamforge.learned.hybrid.sight import of_problem
from beamforge.learned.hybrid.virtual_channels import channel_gain, channel_shift, virtual_channels
from beamforge.scenarios.csi import PilotCSI
from beamforge.scenarios.upa import UPA


def sampled(count=5, users=2):
    instance = PilotCSI(UPA(users, 4, 2, target_high_db=3.0), 5.0, 15.0).sample(count, dtype=torch.complex128)
    problem = build_problem("hybrid-min-power", {**instance.context, "outage": 0.1})
    return problem, instance, of_problem(problem.bind(instance.truth), instance.observation)


def test_the_covariance_is_that_of_the_mmse_error():
    _, _, seen = sampled()
    found = error_covariance(seen)
    R, rho = seen.covariance.numpy(), seen.quality.numpy()
    for b, k in np.ndindex(*rho.shape):
        inverse = np.linalg.inv(R[b, k] + np.eye(8) / rho[b, k])
        np.testing.assert_allclose(found[b, k], R[b, k] - R[b, k] @ inverse @ R[b, k], atol=1e-12)
        assert np.linalg.eigvalsh(found[b, k]).min() > -1e-12


def test_errors_of_the_scenario_have_this_covariance_in_the_mean():
    _, instance, seen = sampled(count=3000)
    error = (instance.truth.channel - seen.H).conj()
    power = error.abs().square().mean((0, 1))
    expected = error_covariance(seen).diagonal(dim1=-2, dim2=-1).real.mean((0, 1))
    torch.testing.assert_close(power, expected, rtol=0.06, atol=0)


@pytest.mark.parametrize("users", [1, 2])
def test_virtual_targets_are_met_with_equality(users):
    problem, instance, seen = sampled(users=users)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        solver = HybridErrorGCN(checkpoint="random").requires_grad_(False).eval()
    solution = solver.solve(problem, instance)
    assert solution.solved.all()
    E = error_covariance(seen)
    one = torch.ones_like(seen.targets)
    c = virtual_channels(
        solver.network, channel_shift(seen.H), channel_gain(seen.H), seen.targets, seen.quality, floor=one
    )
    size = E.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    H, W = seen.H.numpy(), solution.W.numpy()
    for b, k in np.ndindex(*H.shape[:2]):
        got = np.abs(H[b, k] @ W[b]) ** 2
        spread = np.einsum("nd,nm,md->d", W[b].conj(), E[b, k].numpy(), W[b]).real
        assert size[b, k] > 0
        wanted = float(c.wanted[b, k]) * got[k] + float(c.wanted_floor[b, k]) * spread[k]
        heard = float(c.interfering[b, k]) * got + float(c.interfering_floor[b, k]) * spread
        sinr = wanted / (heard.sum() - heard[k] + 1)
        assert sinr == pytest.approx(float(seen.targets[b, k]), rel=1e-6)


def test_channels_without_covariance_count_as_white():
    _, _, seen = sampled()
    found = error_covariance(seen._replace(covariance=None))
    gain = channel_gain(seen.H)
    expected = gain / (1 + seen.quality * gain)
    torch.testing.assert_close(found.diagonal(dim1=-2, dim2=-1).real[..., 0], expected)
