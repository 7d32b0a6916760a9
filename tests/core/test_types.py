"""The types beyond one stream and one antenna per user: streams, observations, terms, factors, reports."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from beamforge import ConfigError, Instance, Network, Problem, ShapeError, Solution, UnsupportedProblem, evaluate
from beamforge.classical.duality.min_power import Duality
from beamforge.classical.linear import RZF
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.beams import Beams, Factors
from beamforge.core.capability import Capability, Feature, Form, features
from beamforge.core.constraints import (
    ChanceConstraint,
    Constraint,
    EqualPower,
    MeanJainAtLeast,
    SinrAtLeast,
    SinrOutage,
    TotalPower,
)
from beamforge.core.observation import Observation
from beamforge.core.solution import Asked
from beamforge.core.streams import Streams
from beamforge.core.terms import number
from beamforge.core.utilities import SumRate, TransmitPower


def gaussian(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


# --- streams ---------------------------------------------------------------------------------------------------------
def test_streams_have_a_transmitter_and_a_user():
    streams = Streams(torch.tensor([1, 0, 1, 1]), torch.tensor([2, 0, 2, -1]))
    np.testing.assert_array_equal(streams.sent_by(2), [[0, 1, 0, 0], [1, 0, 1, 1]])
    np.testing.assert_array_equal(streams.data_of(3), [[0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]])
    np.testing.assert_array_equal(streams.sent(2), [1, 3])
    usual = Streams(torch.tensor([0, 0, 0]))
    np.testing.assert_array_equal(usual.data_of(2), [[1, 0, 0], [0, 1, 0]])


def rates_by_hand(H, W, noise, sender, user, M):
    """log2 det(I + S S^H (I I^H + noise)^-1) of every user, by NumPy; H [T, K M, N], W [N, D]."""
    found = []
    for k in range(len(noise)):
        A = np.stack([H[sender[d], k * M : (k + 1) * M] @ W[:, d] for d in range(W.shape[1])], -1)
        S, other = A[:, user == k], A[:, user != k]
        disturbance = other @ other.conj().T + noise[k] * np.eye(M)
        found.append(np.linalg.slogdet(np.eye(M) + np.linalg.solve(disturbance, S @ S.conj().T))[1] / np.log(2))
    return np.array(found)


@pytest.mark.parametrize(
    ("T", "M", "sender", "user"),
    [
        (1, 1, [0, 0, 0, 0], [0, 1, 2, -1]),
        (1, 1, [0, 0, 0, 0, 0], [2, 0, 0, 1, -1]),
        (2, 1, [0, 1, 1, 0], [1, 1, 0, 2]),
        (1, 2, [0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 2, 2]),
        (1, 3, [0, 0, 0, 0], [2, 2, 0, -1]),
        (2, 2, [1, 0, 1, 0, 0], [0, 0, 1, 2, -1]),
    ],
)
def test_the_rate_is_that_of_joint_decoding(T, M, sender, user):
    K, N, D = 3, 4, len(sender)
    H, W = gaussian(5, T, K * M, N), gaussian(5, N, D, seed=1)
    noise = torch.rand(5, K, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.1
    network = Network.multicell(H, noise, torch.tensor(sender), torch.tensor(user), M)
    expected = [rates_by_hand(*map(np.asarray, (H[b], W[b], noise[b], sender, user)), M) for b in range(5)]
    np.testing.assert_allclose(network.rate(W), expected, rtol=1e-10)
    np.testing.assert_allclose(network.sinr(W), 2 ** np.array(expected) - 1, rtol=1e-9)
    np.testing.assert_allclose(network.whitened().rate(W), expected, rtol=1e-10)


def test_derivatives_of_the_rate_of_users_with_several_antennas_agree_with_differences():
    H, W = gaussian(4, 3), gaussian(3, 4, seed=1)
    torch.autograd.gradcheck(
        lambda H, W: Network.broadcast(H, 0.3, receive_antennas=2).rate(W), (H.requires_grad_(), W.requires_grad_())
    )


def test_the_default_order_of_streams_is_recognised_when_stated_explicitly():
    H = gaussian(3, 4)
    assert Network.broadcast(H, 1.0, stream_user=torch.tensor([0, 1, 2, -1])).streams.user is None
    assert Network.broadcast(H, 1.0, stream_user=torch.tensor([1, 0, 2])).streams.user is not None
    assert features(Network.broadcast(H, 1.0, sensing_streams=1)) == {Feature.SENSING}
    assert features(Network.broadcast(gaussian(4, 4), 1.0, receive_antennas=2)) == {
        Feature.RECEIVE_ANTENNAS,
        Feature.SEVERAL_STREAMS,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"receive_antennas": 2}, "divisor of the 3 rows"),
        ({"receive_antennas": 0}, "divisor"),
        ({"stream_user": torch.tensor([0, 1, 3])}, "stream_user must be integers -1..2"),
        ({"stream_user": torch.tensor([0, 1, -2])}, "stream_user must be integers -1..2"),
        ({"stream_user": torch.tensor([0.0, 1.0])}, "integers"),
        ({"stream_user": torch.zeros(2, 3, dtype=torch.long)}, "stream_user"),
    ],
)
def test_streams_that_do_not_fit_the_network_are_refused(change, words):
    with pytest.raises(ShapeError, match=words):
        Network.broadcast(gaussian(5, 3, 4), 1.0, **change)


def test_a_network_is_checked_by_every_constructor():
    network = Network.broadcast(gaussian(5, 3, 4), 1.0)
    with pytest.raises(ShapeError, match="noise and streams"):
        Network(network.H, network.noise[:, :2], network.streams)
    with pytest.raises(ShapeError, match="noise and streams"):
        Network(network.H[:4], network.noise, network.streams)
    with pytest.raises(ShapeError, match="transmitter for each"):  # serving is shorter than the number of users
        Network.multicell(gaussian(2, 3, 4), 1.0, torch.tensor([0, 1]))


@pytest.mark.parametrize("method", [ReducedWMMSE, RZF])
def test_streams_that_a_method_cannot_handle_are_refused(method):
    problem = Problem(SumRate(), (TotalPower(1.0),))
    for network, words in [
        (Network.broadcast(gaussian(3, 4), 1.0, sensing_streams=1), "streams without data"),
        (Network.broadcast(gaussian(3, 4), 1.0, stream_user=torch.tensor([0, 1, 2, 2])), "several streams"),
        (Network.broadcast(gaussian(4, 4), 1.0, receive_antennas=2), "users with several antennas"),
    ]:
        with pytest.raises(UnsupportedProblem, match=words):
            method().solve(problem, network)


# --- observations ----------------------------------------------------------------------------------------------------
def test_a_transmitter_knows_its_own_channels_and_limits_alone():
    network = Network.interference(gaussian(5, 3, 3, 4), 1.0)
    limits = torch.rand(5, 3, dtype=torch.float64) + 1
    instance = Instance.perfect(network, p_max_transmitter=limits)
    for t in range(3):
        local = instance.observation.local(t)
        torch.testing.assert_close(local.network.H[:, t], network.H[:, t])
        torch.testing.assert_close(local.context["p_max_transmitter"][:, t], limits[:, t])
        others = [s for s in range(3) if s != t]
        assert local.network.H[:, others].isnan().all() and local.context["p_max_transmitter"][:, others].isnan().all()


def test_the_context_has_documented_names_and_shapes():
    network = Network.broadcast(gaussian(5, 3, 4), 1.0)
    with pytest.raises(ConfigError, match="unknown entry of a context 'csi_qualty'; did you mean 'csi_quality'"):
        Instance.perfect(network, csi_qualty=torch.ones(5))
    with pytest.raises(ShapeError, match=r"weights must be \[\.\.\., K\]"):
        Instance.perfect(network, weights=torch.ones(5, 4))
    with pytest.raises(ShapeError, match="covariance"):
        RZF().solve(Problem(SumRate(), (TotalPower(1.0),)), Observation(network, {"covariance": torch.ones(5, 4, 4)}))
    angles = torch.rand(5, 7)
    assert Instance.perfect(network, target_angles=angles).context["target_angles"] is angles  # an axis of its own


def test_a_solver_does_not_use_the_true_network():
    network = Network.broadcast(gaussian(5, 3, 4), 0.1)
    poisoned = replace(network, H=torch.full_like(network.H, torch.nan))
    problem = Problem(SumRate(), (TotalPower(1.0),))
    seen = Instance.estimated(poisoned, network)
    torch.testing.assert_close(ReducedWMMSE().solve(problem, seen).W, ReducedWMMSE().solve(problem, network).W)


# --- terms -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class BeamGain(Constraint):
    """``|c_m|^2 |a(theta_m)^H W|^2 >= level_m`` for every target m, with numbers of every domain."""

    angle: object = number("targets", domain="real")
    gain: object = number("targets", domain="complex")
    level: object = number("targets", default=1.0)

    def gains(self, network, W):
        n = torch.arange(network.antennas, dtype=torch.float64)
        a = torch.exp(1j * torch.pi * n * torch.sin(self.angle).unsqueeze(-1)).to(W.dtype) / network.antennas**0.5
        return (self.gain.unsqueeze(-1) * (a.conj() @ W)).abs().square().sum(-1)

    def violation(self, instance, beams):
        return (1 - self.gains(instance.truth, beams.W) / self.level).amax(-1)

    def figures(self, instance, beams):
        return {"beam_gain": self.gains(instance.truth, beams.W)}


def test_numbers_of_a_term_may_be_complex_or_negative_and_have_their_own_axis():
    network = Network.broadcast(gaussian(5, 3, 4), 1.0)
    angle = torch.tensor([-0.5, 0.3], dtype=torch.float64)
    bound = BeamGain(angle, torch.tensor([1.0 + 1j, -2.0], dtype=torch.complex128)).bind(network)
    assert bound.gain.shape == (5, 2) and bound.gain.dtype == torch.complex128
    assert bound.level.shape == (5, 2)  # one number for all targets
    report = evaluate(Problem(SumRate(), (BeamGain(angle, [1 + 1j, -2.0]),)), network, W := gaussian(5, 4, 3, seed=1))
    n = np.arange(4)
    a = np.stack([np.exp(1j * np.pi * n * np.sin(t)) / 2 for t in (-0.5, 0.3)])
    expected = np.abs([1 + 1j, -2.0])[:, None] ** 2 * np.abs(a.conj() @ W.numpy()) ** 2
    np.testing.assert_allclose(report.figures["beam_gain"], expected.sum(-1), rtol=1e-12)
    np.testing.assert_allclose(report.violation["BeamGain"], (1 - expected.sum(-1)).max(-1), rtol=1e-12)


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (BeamGain(torch.tensor([0.1, 0.2]).double(), torch.ones(3) + 0j), "gain of BeamGain"),
        (BeamGain(0.1, 1.0), r"angle of BeamGain must be \[\.\.\., targets\]"),
        (BeamGain(torch.tensor([torch.inf]).double(), [1.0]), "finite"),
        (BeamGain([0.1], [1.0], -1.0), "positive and finite"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(term, words):
    with pytest.raises(ShapeError, match=words):
        term.bind(Network.broadcast(gaussian(3, 4), 1.0))


def test_several_constraints_of_a_type_are_all_kept_and_all_reported():
    network = Network.broadcast(gaussian(5, 3, 4), 0.1)
    W = gaussian(5, 4, 3, seed=1)
    W = W * (12 / W.abs().square().sum((-2, -1), keepdim=True)).sqrt()
    for limits in ((1.0, 100.0), (100.0, 1.0)):
        problem = Problem(SumRate(), tuple(map(TotalPower, limits)))
        report = evaluate(problem, network, W)
        np.testing.assert_allclose(report.violation["TotalPower"], 12 / limits[0] - 1, rtol=1e-9)
        np.testing.assert_allclose(report.violation["TotalPower 2"], 12 / limits[1] - 1, rtol=1e-9)
        assert not report.feasible.any()
        spent = ReducedWMMSE().solve(problem, network).W.abs().square().sum((-2, -1))
        np.testing.assert_allclose(spent, 1, rtol=1e-9)
    targets = Problem(TransmitPower(), (SinrAtLeast(1.0), SinrAtLeast(torch.tensor([0.5, 2.0, 0.1]).double())))
    sinr = network.sinr(Duality().solve(targets, network).W)
    np.testing.assert_allclose(sinr, np.tile([1.0, 2.0, 1.0], (5, 1)), rtol=1e-6)


def test_several_constraints_without_an_equivalent_single_one_are_refused():
    problem = Problem(SumRate(), (EqualPower(1.0), EqualPower(2.0), MeanJainAtLeast(0.9)))
    with pytest.raises(UnsupportedProblem, match="one EqualPower"):
        problem.bind(Network.broadcast(gaussian(3, 4), 1.0)).merged()


class Doubled(SumRate):
    """A subclass of `SumRate` with twice its value."""

    def value(self, instance, beams):
        return 2 * super().value(instance, beams)


def test_a_subclass_of_a_supported_utility_is_refused():
    network = Network.broadcast(gaussian(3, 4), 1.0)
    problem = Problem(Doubled(), (TotalPower(1.0),))
    with pytest.raises(UnsupportedProblem, match="Doubled"):
        ReducedWMMSE().solve(problem, network)
    plain = evaluate(Problem(SumRate(), (TotalPower(1.0),)), network, W := gaussian(4, 3))
    assert evaluate(problem, network, W).utility == pytest.approx(2 * plain.utility.item())


def test_a_capability_may_need_one_of_several_constraints():
    either = Capability(SumRate, (Form.BROADCAST,), needs_one_of=(TotalPower, EqualPower))
    network = Network.broadcast(gaussian(3, 4), 1.0)
    assert either.accepts(Problem(SumRate(), (EqualPower(1.0),)), network)
    assert not either.accepts(Problem(SumRate()), network)
    assert not either.accepts(Problem(SumRate(), (EqualPower(1.0), MeanJainAtLeast(0.9))), network)


# --- probabilities ---------------------------------------------------------------------------------------------------
def test_an_outage_is_measured_over_the_realisations_of_an_instance():
    H = gaussian(5, 3, 4)
    error = 0.3 * gaussian(5, 400, 3, 4, seed=1)
    drawn = Network.broadcast(H.unsqueeze(1) + error, 0.1)
    estimate = Network.broadcast(H, 0.1)
    instance = replace(Instance.perfect(estimate), realisations=drawn)
    W = RZF().solve(Problem(SumRate(), (TotalPower(1.0),)), estimate).W
    target = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    share = (drawn.sinr(W.unsqueeze(1)) < target).double().mean(1).numpy()
    outage = SinrOutage(probability=0.1, target=target)
    report = evaluate(Problem(SumRate(), (outage,)), instance, W)
    np.testing.assert_allclose(report.violation["SinrOutage"], (share / 0.1 - 1).max(-1), rtol=1e-12)
    assert report.feasible.tolist() == (share <= 0.1 * (1 + 1e-7)).all(-1).tolist()
    alone = evaluate(Problem(SumRate(), (outage,)), estimate, W)  # without realisations: over the truth alone
    missed = (estimate.sinr(W) < target).any(-1)
    assert alone.feasible.tolist() == (~missed).tolist()
    assert isinstance(outage, ChanceConstraint)


# --- factors and figures ---------------------------------------------------------------------------------------------
def test_a_solution_may_have_factors():
    factors = Factors(gaussian(5, 4, 2), gaussian(5, 2, 3, seed=1), torch.rand(5, 3, dtype=torch.float64))
    status = torch.tensor([0, 0, 2, 0, 3])
    solution = Solution.hybrid(factors, status, torch.zeros(5, dtype=torch.long)).settled()
    torch.testing.assert_close(solution.W[0], factors.analog[0] @ (factors.digital[0] * factors.power[0].sqrt()))
    assert (solution.W[[2, 4]] == 0).all()
    torch.testing.assert_close(solution.factors.W, solution.W)
    assert solution.beams.factors is solution.factors


@dataclass(frozen=True)
class RFChains(Constraint):
    """At most `most` RF chains."""

    most: object = number()

    def violation(self, instance, beams):
        return beams.factors.analog.shape[-1] / self.most - 1


def test_terms_see_the_factors():
    factors = Factors(gaussian(4, 2), gaussian(2, 3, seed=1), torch.ones(3, dtype=torch.float64))
    network = Network.broadcast(gaussian(3, 4, seed=2), 1.0)
    for most, held in ((2.0, True), (1.0, False)):
        report = evaluate(Problem(SumRate(), (RFChains(most),)), network, Beams(factors.W, factors))
        assert bool(report.feasible) is held


def test_a_solution_has_rates_and_utility_if_it_has_its_problem_and_instance():
    network = Network.broadcast(gaussian(5, 3, 4), 0.1)
    problem = Problem(SumRate(), (TotalPower(1.0),))
    solution = ReducedWMMSE().solve(problem, network)
    with pytest.raises(LookupError, match="evaluate"):
        _ = solution.rate
    asked = replace(solution, asked=Asked(problem, Instance.perfect(network), "mine"))
    torch.testing.assert_close(asked.rate, network.rate(solution.W))
    torch.testing.assert_close(asked.utility, network.rate(solution.W).sum(-1))
