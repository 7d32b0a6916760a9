"""Digital beams of least power: against cone programs, SINRs in NumPy, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.classical.hybrid.digital import digital_beams
from tests.oracles import channels
from tests.oracles_convex import LeastPower


def rank_one(h):
    return torch.from_numpy(h[..., :, None] * h[..., None, :].conj())


def semidefinite(*shape, rank, seed):
    a = channels(*shape, rank, seed=seed)
    return torch.from_numpy(a @ a.conj().swapaxes(-1, -2))


def scored(found, wanted, interfering):
    """SINR [B, K] by definition."""
    w = np.sqrt(found.p.numpy())[:, None, :] * found.beams.numpy()
    power = {
        name: np.einsum("bmj,bkmn,bnj->bkj", w.conj(), G.numpy(), w).real
        for name, G in (("own", wanted), ("others", interfering))
    }
    out = np.zeros(found.p.shape)
    for k in range(out.shape[1]):
        interference = sum(power["others"][:, k, j] for j in range(out.shape[1]) if j != k)
        out[:, k] = power["own"][:, k, k] / (interference + 1)
    return out


def example(dtype=torch.complex128):
    """Five instances of three users with four chains: different wanted and interfering matrices, any D."""
    wanted = semidefinite(5, 3, 4, rank=1, seed=0) + 0.1 * semidefinite(5, 3, 4, rank=4, seed=1)
    interfering = semidefinite(5, 3, 4, rank=1, seed=2) + 0.05 * semidefinite(5, 3, 4, rank=4, seed=3)
    D = semidefinite(5, 4, rank=4, seed=4) + torch.eye(4)
    targets = torch.from_numpy(np.random.default_rng(5).uniform(0.5, 2, (5, 3)))
    return wanted.to(dtype), interfering.to(dtype), D.to(dtype), targets.to(dtype.to_real())


@pytest.mark.parametrize(("users", "chains"), [(4, 5), (3, 3), (4, 3)])
def test_optimum_of_the_cone_program(users, chains):
    h = channels(4, users, chains, seed=6)
    D = semidefinite(4, chains, rank=chains, seed=7) + torch.eye(chains)
    targets = np.random.default_rng(8).uniform(0.3, 1.2, (4, users))
    found = digital_beams(rank_one(h), rank_one(h), D, torch.from_numpy(targets))
    program = LeastPower(1, users, chains, [0] * users)
    for b in range(4):
        factor = np.linalg.cholesky(D[b].numpy())
        rows = np.linalg.solve(factor, h[b].T).conj().T  # h^H L^-H
        assert found.cost[b].item() == pytest.approx(program(rows[None], np.ones(users), targets[b]), rel=1e-8)
    np.testing.assert_allclose(scored(found, rank_one(h), rank_one(h)), targets, rtol=1e-10)


def test_targets_are_met_and_the_costs_of_both_directions_agree():
    wanted, interfering, D, targets = example()
    found = digital_beams(wanted, interfering, D, targets)
    np.testing.assert_allclose(scored(found, wanted, interfering), targets, rtol=1e-12)
    B = found.beams.numpy()
    weighted = np.einsum("bmk,bmn,bnk->bk", B.conj(), D.numpy(), B).real
    np.testing.assert_allclose((found.p.numpy() * weighted).sum(-1), found.cost, rtol=1e-12)
    np.testing.assert_allclose(found.q.sum(-1), found.cost, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(B, axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(B[:, -1].imag, 0, atol=1e-14)
    assert (B[:, -1].real >= 0).all()


def test_uplink_powers_are_the_limit_of_the_plain_fixed_point():
    wanted, interfering, D, targets = (tensor.numpy() for tensor in example())
    found = digital_beams(*example())
    for b in range(5):
        q = np.zeros(3)
        for _ in range(2000):
            q = np.array([
                targets[b, k]
                / np.linalg.eigvals(
                    np.linalg.solve(D[b] + sum(q[j] * interfering[b, j] for j in range(3) if j != k), wanted[b, k])
                ).real.max()
                for k in range(3)
            ])  # fmt: skip
        np.testing.assert_allclose(found.q[b], q, rtol=1e-9)


def test_matrices_of_rank_one_and_of_more_give_the_same_limit():
    """Rank one has a path of its own; it is taken only if all matrices of a batch have it."""
    G, (_, interfering, D, targets) = rank_one(channels(5, 3, 4, seed=14)), example()
    alone = digital_beams(G, interfering, D, targets)
    np.testing.assert_allclose(scored(alone, G, interfering), targets, rtol=1e-12)
    mixed = G.clone()
    mixed[4] += torch.eye(4)
    general = digital_beams(mixed, interfering, D, targets)
    torch.testing.assert_close(alone.beams[:4], general.beams[:4], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alone.q[:4], general.q[:4], rtol=1e-9, atol=0)
    assert general.cost[4] < alone.cost[4]


def test_single_precision_and_warm_start():
    single, double = digital_beams(*example(torch.complex64)), digital_beams(*example())
    assert single.beams.dtype == torch.complex64 and single.p.dtype == torch.float32
    np.testing.assert_allclose(single.cost, double.cost, rtol=1e-4)
    warm = digital_beams(*example(), start=double.q * 1.1)
    np.testing.assert_allclose(warm.p, double.p, rtol=1e-12)


def test_batch_dimensions_and_instances_alone():
    arguments = example()
    together = digital_beams(*arguments)
    alone = digital_beams(*(tensor[3] for tensor in arguments))
    torch.testing.assert_close(alone.beams, together.beams[3], rtol=1e-12, atol=1e-12)
    square = digital_beams(*(tensor[:4].unflatten(0, (2, 2)) for tensor in arguments))
    assert square.beams.shape == (2, 2, 4, 3)
    torch.testing.assert_close(square.p.flatten(0, 1), together.p[:4], rtol=1e-12, atol=0)
    empty = digital_beams(*(tensor[:0] for tensor in arguments))
    assert empty.cost.shape == (0,)


def test_boundary_of_the_feasible_targets():
    """With two chains and three users of rank one, targets t are feasible if and only if 3 t / (1 + t) < 2."""
    G = rank_one(channels(6, 3, 2, seed=9))
    for target, feasible in ((1.999, True), (2.001, False), (50.0, False)):
        found = digital_beams(G, G, torch.eye(2).to(G), torch.full((6, 3), target).double())
        assert (found.feasible == feasible).all()
        if feasible:
            np.testing.assert_allclose(scored(found, G, G), target, rtol=1e-7)
        else:
            assert found.cost.isinf().all() and (found.p == 0).all() and (found.beams == 0).all()


def test_failed_instances_leave_the_others_alone():
    wanted, interfering, D, targets = example()
    reference = digital_beams(wanted, interfering, D, targets)
    wanted[0] = torch.nan
    interfering[1] = torch.inf
    D[2] = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    wanted[3, 0] = 0
    found = digital_beams(wanted, interfering, D, targets)
    assert found.feasible.tolist() == [False, False, False, False, True]
    torch.testing.assert_close(found.beams[4], reference.beams[4], rtol=1e-12, atol=1e-12)


def test_one_user_and_one_chain():
    G = torch.full((1, 1, 1), 4.0).to(torch.complex128)
    found = digital_beams(G, G, torch.eye(1).to(G), torch.tensor([2.0]).double())
    assert found.p.item() == pytest.approx(0.5) and found.beams.item() == pytest.approx(1)


def loss_of(found, seed=10):
    """A function of everything that depends on the arguments, [B]."""
    mixed = torch.from_numpy(channels(*found.beams.shape, seed=seed))
    factors = torch.from_numpy(channels(2, *found.p.shape, seed=seed + 1).real)
    total = (mixed.conj() * found.beams).real.sum((-2, -1)) + (factors[0] * found.p + factors[1] * found.q).sum(-1)
    return torch.where(found.feasible, total + 0.3 * torch.where(found.feasible, found.cost, 0), 0)


@pytest.mark.parametrize("argument", range(4))
def test_gradient_equals_finite_differences(argument):
    given = example()
    direction = [semidefinite(5, 3, 4, rank=4, seed=11)] * 2 + [semidefinite(5, 4, rank=4, seed=12)]
    along = [*direction, torch.from_numpy(channels(5, 3, seed=13).real)][argument]

    def at(step):
        return loss_of(digital_beams(*(x + step * along if n == argument else x for n, x in enumerate(given))))

    def difference(h):
        return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)

    expected = (16 * difference(5e-4) - difference(1e-3)) / 15
    tracked = [x.clone().requires_grad_(n == argument) for n, x in enumerate(given)]
    loss_of(digital_beams(*tracked)).sum().backward()
    gradient = tracked[argument].grad
    found = (gradient.conj() * along).real.reshape(5, -1).sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_gradient_is_zero_for_an_infeasible_instance():
    wanted, interfering, D, targets = example()
    targets[2] = 1e6
    wanted[3] = torch.nan
    tracked = [x.clone().requires_grad_() for x in (wanted, interfering, D, targets)]
    found = digital_beams(*tracked)
    assert found.feasible.tolist() == [True, True, False, False, True]
    (loss_of(found).sum() + found.p.sum() + found.beams.real.sum()).backward()
    for x in tracked:
        assert (x.grad[2:4] == 0).all()
        assert torch.isfinite(torch.view_as_real(x.grad) if x.is_complex() else x.grad).all()
        assert (x.grad[0] != 0).any()
