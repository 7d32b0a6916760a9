"""The baseline of three networks: where it begins, what it claims, how it learns, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from learning import all_random, check_gradient_of_loss

from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.named_problems import build_problem
from beamforge.learned.isac.dnn import IsacDNN, joined, numbers
from beamforge.learned.isac.isac_data import IsacData
from beamforge.learned.isac.streams import initial
from beamforge.registry import create
from beamforge.reproduce.isac.score import score
from beamforge.scenarios import Isac
from beamforge.training.data.isac import MaskedIsac
from beamforge.training.stream import Stream
from beamforge.training.trainable import Alternating


def made(std=0.0, size=4):
    solver = IsacDNN(checkpoint="random", size=size, width=6)
    return all_random(solver, std) if std else solver


def sampled(size=4, targets=2, count=8, **fields):
    instance = Isac(users=size, antennas=size, targets=targets, **fields).sample(count, seed=2, dtype=torch.complex128)
    return instance, build_problem("isac", instance.context)


def test_before_training_it_is_its_initial_beams():
    instance, problem = sampled()
    data = IsacData.of(instance.truth, problem.bind(instance.truth))
    with torch.no_grad():
        (W, F), (found_W, found_F) = made().walk(data)
    for found, expected in ((W, initial(data)[0]), (F, initial(data)[1]), (found_W, W), (found_F, F)):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("std", [0.0, 0.3])
@pytest.mark.parametrize("targets", [1, 4])
def test_claimed_solutions_keep_all_limits_by_an_independent_score(std, targets):
    instance, problem = sampled(targets=targets, sensing_snr_db=2.0)
    solution = made(std).solve(problem, instance)
    _, excess = score(instance, solution.W.numpy())
    solved = solution.solved.numpy()
    assert solved.any() and excess[solved].max() <= 1e-6
    torch.testing.assert_close(
        solution.W[solution.solved].abs().square().sum((-2, -1)), torch.ones(solved.sum()).double()
    )


def test_other_sizes_are_refused():
    for users, antennas in ((4, 3), (3, 4), (5, 5)):
        instance = Isac(users=users, antennas=antennas, targets=1).sample(1)
        problem = build_problem("isac", instance.context)
        with pytest.raises(
            UnsupportedProblem, match=f"isac-dnn has weights for 4 users and 4 antennas, got {users} and"
        ):
            made().solve(problem, instance)
        with pytest.raises(
            UnsupportedProblem, match=r"isac-dnn \(16 users and 16 antennas.*does not serve.*isac-wmmse"
        ):
            create(problem, instance.truth, "isac-dnn")
    with pytest.raises(ConfigError, match="size and width must be at least 1, got 0 and 6"):
        made(size=0)


def test_the_networks_learn_in_turns_from_one_loss_whose_gradient_is_right():
    batch = Stream.training(MaskedIsac(size=4, sizes=1, targets=(2, 3)), 3, 6, torch.complex128).batch_at(0)
    solver = made(0.3).double()
    assert isinstance(solver, Alternating) and set(solver.turns) == {"communication", "sensing", "power"}
    for part in solver.turns:
        assert solver.turn(part, batch, torch.Generator())[0] == solver.loss(batch, torch.Generator())[0]
    check_gradient_of_loss(solver, batch, step=1e-6)


def test_parts_are_joined_again():
    vectors = torch.randn(3, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    parts = numbers(vectors)
    torch.testing.assert_close(parts.square().mean(-1), torch.ones(3, dtype=torch.float64))
    rows = joined(parts, 2)
    assert rows.shape == (3, 2, 3)
    torch.testing.assert_close(rows.flatten(1) / vectors, (rows.flatten(1) / vectors)[:, :1].expand(-1, 6))
    assert (numbers(0 * vectors) == 0).all()
