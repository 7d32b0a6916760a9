"""`Solver.solve`: batch dimensions, refusals, and failures that do not affect other instances."""

import pytest
import torch

from beamforge import Network, Problem, ShapeError, Solution, Status, UnsupportedProblem
from beamforge.classical.linear import MRT
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.capability import Form, forms
from beamforge.core.constraints import PerAntennaPower, SinrAtLeast, TotalPower
from beamforge.core.utilities import SumRate, TransmitPower

PROBLEM = Problem(SumRate(), (TotalPower(1.0),))


def network(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Network.broadcast(torch.randn(*shape, dtype=torch.complex128, generator=generator), 0.1)


def test_forms_of_networks():
    one = torch.ones(2, 3, 2, dtype=torch.complex128)
    assert forms(Network.broadcast(one, 1.0)) == {Form.BROADCAST, Form.MULTICELL}
    assert forms(Network.multicell(one[:, None].expand(2, 2, 3, 2), 1.0, torch.tensor([0, 1, 1]))) == {Form.MULTICELL}
    pairs = one[:, None].expand(2, 3, 3, 2)
    assert forms(Network.interference(pairs, 1.0)) == {Form.MULTICELL, Form.INTERFERENCE}
    assert forms(Network.multicell(pairs, 1.0, torch.tensor([0, 2, 1]))) == {Form.MULTICELL}
    links = {Form.MULTICELL, Form.INTERFERENCE, Form.POWER_CONTROL}
    assert forms(Network.power_control(torch.ones(3, 3), 1.0)) == links
    assert forms(Network.power_control(torch.ones(1, 1), 1.0)) == set(Form)


def test_a_problem_that_a_method_does_not_serve_is_refused():
    for problem in (
        Problem(SumRate()),
        Problem(SumRate(), (PerAntennaPower(1.0),)),
        Problem(SumRate(), (TotalPower(1.0), SinrAtLeast(1.0))),
        Problem(TransmitPower(), (SinrAtLeast(1.0),)),
    ):
        with pytest.raises(UnsupportedProblem, match="ReducedWMMSE does not serve"):
            ReducedWMMSE().solve(problem, network(2, 3, 4))


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"weights of SumRate must broadcast to \(2, 3\), got \(4,\)"):
        MRT().solve(Problem(SumRate(torch.ones(4, dtype=torch.float64)), (TotalPower(1.0),)), network(2, 3, 4))
    with pytest.raises(ShapeError, match="limit of TotalPower must be positive and finite, got 0"):
        MRT().solve(Problem(SumRate(), (TotalPower(0.0),)), network(2, 3, 4))
    with pytest.raises(ShapeError, match="weights of SumRate must be non-negative and finite, got -1"):
        MRT().solve(Problem(SumRate(-1.0), (TotalPower(1.0),)), network(2, 3, 4))
    with pytest.raises(ShapeError, match=r"start must be \(2, 4, 3\), got \(4, 3\)"):
        ReducedWMMSE().solve(PROBLEM, network(2, 3, 4), start=torch.ones(4, 3, dtype=torch.complex128))


def test_a_failed_instance_is_flagged_has_zero_beams_and_does_not_affect_others():
    clean = network(3, 4, 4)
    H = clean.H.clone()
    H[1, 0, 2, 3] = torch.inf
    spoilt = Network(H, clean.noise, clean.streams)
    for method in (MRT(), ReducedWMMSE()):
        one, other = method.solve(PROBLEM, clean), method.solve(PROBLEM, spoilt)
        assert other.status.tolist() == [Status.CONVERGED, Status.NUMERICAL_FAILURE, Status.CONVERGED]
        assert (other.W[1] == 0).all()
        torch.testing.assert_close(other.W[[0, 2]], one.W[[0, 2]], rtol=1e-9, atol=1e-12)


def test_settled_keeps_infeasible_and_flags_numerical_failures():
    W = torch.ones(3, 2, 2, dtype=torch.complex64)
    W[0, 0, 0] = torch.nan
    W[1, 0, 0] = torch.nan
    status = torch.tensor([Status.INFEASIBLE, Status.MAX_ITERATIONS, Status.MAX_ITERATIONS])
    settled = Solution(W, status, torch.zeros(3, dtype=torch.long)).settled()
    assert settled.status.tolist() == [Status.INFEASIBLE, Status.NUMERICAL_FAILURE, Status.MAX_ITERATIONS]
    assert settled.solved.tolist() == [False, False, True]
    assert (settled.W[:2] == 0).all()
    assert (settled.W[2] == 1).all()


def test_every_status_says_what_to_do():
    assert len({status.remedy for status in Status}) == len(Status)


@pytest.mark.parametrize("shape", [(), (2,), (2, 1, 3)])
def test_any_batch_dimensions(shape):
    solution = ReducedWMMSE().solve(PROBLEM, network(*shape, 3, 4))
    assert solution.W.shape == (*shape, 4, 3)
    assert solution.status.shape == solution.iterations.shape == shape
    assert solution.trace.shape[:-1] == shape
