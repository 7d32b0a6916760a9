"""New kinds of methods, each one file and one line in the registry: for joint sensing and for uncertain channels.

The classes here are the contents of such files; a fixture adds the lines to `METHODS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from beamforge import Instance, Network, Problem, UnsupportedProblem, evaluate
from beamforge.checks import Question, check_solver
from beamforge.classical.structure import unit
from beamforge.core.capability import Capability, Feature, Form
from beamforge.core.constraints import Lower, TotalPower
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.core.terms import number
from beamforge.core.utilities import SumRate
from beamforge.registry import METHODS, create, methods_for
from beamforge.scenarios import UPA, PilotCSI


# --- joint sensing ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Illumination(Lower):
    """``sum_d |a(theta_m)^H w_d|^2 >= level_m`` watts for every target m."""

    level: object = number("targets")
    angle: object = number("targets", domain="real", default=0.0)

    def with_also(self, other):
        raise NotImplementedError  # levels at different angles are different limits

    def watts(self, network, W):
        n = torch.arange(network.antennas, dtype=self.angle.dtype)
        a = torch.exp(1j * torch.pi * n * torch.sin(self.angle).unsqueeze(-1)).to(W.dtype) / network.antennas**0.5
        return (a.conj() @ W).abs().square().sum(-1)

    def violation(self, instance, beams):
        return (1 - self.watts(instance.truth, beams.W) / self.level).amax(-1)

    def figures(self, instance, beams):
        return {"illumination": self.watts(instance.truth, beams.W)}


class NullSpaceSensing(Solver):
    """Regularised zero forcing for the users, and sensing streams towards the targets in the null space of the users.

    Each sensing stream points at one target; the users get the remaining power.
    """

    capabilities = (
        Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower, Illumination), handles=(Feature.SENSING,)),
    )

    def solve_batch(self, problem, observation, start, generator):
        network, limit = observation.network.whitened(), problem.get(TotalPower).limit
        targets = problem.get(Illumination)
        H, K, D = network.channel, network.users, network.streams.count
        n = torch.arange(network.antennas, dtype=limit.dtype)
        a = torch.exp(1j * torch.pi * n * torch.sin(targets.angle).unsqueeze(-1)).to(H.dtype).mT / len(n) ** 0.5
        free = a - torch.linalg.pinv(H) @ (H @ a)  # in the null space of H
        watts = 1.01 * targets.level / unit(free).mul(a.conj()).sum(-2).abs().square()
        sensing = torch.zeros_like(H.mH[..., :1]).expand(-1, -1, D - K).clone()
        count = targets.angle.shape[-1]
        sensing[..., :count] = unit(free) * watts.sqrt().unsqueeze(-2)
        left = limit - watts.sum(-1)
        gram = H @ H.mH + torch.eye(K, dtype=H.dtype) * (K / limit)[:, None, None]
        data = unit(H.mH @ torch.linalg.inv(gram)) * (left.clamp_min(0) / K).sqrt()[:, None, None]
        status = torch.where(left > 0, 0, 2)
        return Solution(torch.cat([data, sensing], -1), status, torch.zeros_like(status))


def sensing_network(users=3, antennas=8, batch=4, targets=2):
    generator = torch.Generator().manual_seed(0)
    H = torch.randn(batch, users, antennas, dtype=torch.complex128, generator=generator)
    return Network.broadcast(H, 0.1, sensing_streams=targets)


ANGLES = torch.tensor([-0.7, 0.4], dtype=torch.float64)
JOINT = Problem(SumRate(), (TotalPower(4.0), Illumination([0.3, 0.2], ANGLES)))


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(METHODS, "null-space-sensing", (NullSpaceSensing,))
    monkeypatch.setitem(METHODS, "robust-rzf", (RobustRZF,))


def test_a_method_for_joint_sensing(registered):
    network = sensing_network()
    assert methods_for(JOINT, network) == ["null-space-sensing"]
    solution = create(JOINT, network).solve(JOINT, network)
    assert solution.W.shape == (4, 8, 5)
    report = evaluate(JOINT, network, solution.W)
    assert report.feasible.all()
    W, n = solution.W.numpy(), np.arange(8)
    a = np.stack([np.exp(1j * np.pi * n * np.sin(t)) for t in ANGLES.tolist()]) / 8**0.5
    np.testing.assert_allclose(report.figures["illumination"], (np.abs(a.conj() @ W) ** 2).sum(-1), rtol=1e-10)
    silent = solution.W.clone()
    silent[..., 3:] = 0
    torch.testing.assert_close(network.rate(silent), network.rate(solution.W))  # users receive no sensing stream


def test_the_sensing_method_conforms():
    network = sensing_network()
    check_solver(NullSpaceSensing(), [Question("joint", JOINT.bind(network), Instance.perfect(network))])


def test_an_unregistered_method_is_not_found():
    with pytest.raises(UnsupportedProblem, match="no method does"):
        create(JOINT, sensing_network())


# --- an estimate with an error model ---------------------------------------------------------------------------------
class RobustRZF(Solver):
    """Regularised zero forcing with the expected interference due to estimation errors in the ridge.

    ``w_k ∝ (sum_j (h_j h_j^H + E_j) + K s2/P I)^-1 h_k`` with h_j the estimates and E_j the covariance of their errors,
    ``E = R - R (R + I/rho)^-1 R`` for pilots of quality rho.
    """

    capabilities = (Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower,)),)

    def solve_batch(self, problem, observation, start, generator):
        network, power = observation.network, problem.get(TotalPower).limit
        K, eye = network.users, torch.eye(network.antennas, dtype=network.H.dtype)
        scale = network.noise.rsqrt()[..., None]
        H = network.channel * scale
        error = torch.zeros_like(eye)
        if (R := observation.covariance) is not None:
            rho = observation.quality[..., None, None]
            error = (R - R @ torch.linalg.solve(R + eye / rho, R)) * scale.unsqueeze(-1) ** 2
            error = error.sum(1)
        system = H.mH @ H + error + eye * (K / power)[:, None, None]
        return Solution.closed_form(unit(torch.linalg.solve(system, H.mH)) * (power / K).sqrt()[:, None, None])


def test_a_method_for_an_estimate_with_an_error_model(registered):
    """With the error statistics, the rate on the true channels, unknown to the method, is higher than without."""
    instance = PilotCSI(UPA(users=3, columns=4, rows=2), pilot_low_db=0.0, pilot_high_db=0.0).sample(
        400, seed=5, dtype=torch.complex128
    )
    problem = Problem(SumRate(), (TotalPower(instance.context["p_max"]),)).bind(instance.truth)
    robust, plain = (
        evaluate(problem, instance, create(problem, instance.truth, name).solve(problem, instance).W).utility
        for name in ("robust-rzf", "rzf")
    )
    assert robust.mean() > 1.02 * plain.mean()


def test_the_robust_method_conforms():
    check_solver(RobustRZF())
