"""User selection against recomputed rates and against all subsets of users."""

from __future__ import annotations

import itertools
import math

import torch
from oracles import channels

from beamforge.classical.sum_rate.uplink_newton import errors
from beamforge.classical.sum_rate.user_selection import backward_elimination, orthogonal_users, removal_gain
from beamforge.core.network import own


def rate(gram, weights, shares):
    return -(weights * own(errors(gram, shares)).real.log()).sum(-1) / math.log(2)


def test_the_removal_gain_agrees_with_the_rate_of_the_others():
    H = torch.as_tensor(channels(4, 5, 4))
    gram, weights = 1e3 * H @ H.mH, torch.linspace(1, 2, 5, dtype=torch.float64).expand(4, 5)
    shares = torch.linspace(0.1, 0.3, 5, dtype=torch.float64).repeat(4, 1)
    gain = removal_gain(gram, weights, shares)
    for k in range(5):
        left = shares.clone()
        left[:, k] = 0
        torch.testing.assert_close(gain[:, k], rate(gram, weights, left) - rate(gram, weights, shares))
    assert removal_gain(gram, weights, shares * torch.tensor([0.0, 1, 1, 1, 1]))[:, 0].isneginf().all()


def test_some_of_nearly_parallel_users_are_left_out():
    """With equal powers, both selections are near the best subset and far above serving all users."""
    H = torch.as_tensor(channels(20, 5, 8))
    H[:, 3] = H[:, 0] + 1e-2 * H[:, 3]
    H[:, 4] = H[:, 0] + H[:, 1] + 1e-2 * H[:, 4]
    gram, weights = 1e4 * H @ H.mH, torch.ones(20, 5, dtype=torch.float64)
    every = []
    for size in range(1, 6):
        for users in itertools.combinations(range(5), size):
            shares = torch.zeros(20, 5, dtype=torch.float64)
            shares[:, list(users)] = 1 / size
            every.append(rate(gram, weights, shares))
    best, all_served = torch.stack(every).amax(0), every[-1]
    assert (best > all_served * 1.02).all()
    assert (rate(gram, weights, backward_elimination(gram, weights)) > 0.94 * best).all()
    assert (rate(gram, weights, orthogonal_users(gram, weights)) > 0.9 * best).all()
