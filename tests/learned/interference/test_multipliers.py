"""Decentralised multipliers, whatever their weights: what base stations know, what they say, and where rounds lead."""

from __future__ import annotations

import threading
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from learning import all_random, check_gradient_of_loss
from oracles_sumrate import sum_rate, textbook_wmmse

from beamforge import Network, Problem
from beamforge.checks import check_solver
from beamforge.classical.duality.power_limited import PowerLimitedMaxMin
from beamforge.classical.sum_rate.wmmse import MulticellWMMSE
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.utilities import MinRate, SumRate
from beamforge.decentralised.backhaul import SharedMemory
from beamforge.decentralised.base_stations import BaseStations
from beamforge.learned.interference.multipliers import MaxMinInterference, SumRateInterference
from beamforge.registry import create
from beamforge.scenarios import Interference
from beamforge.training.data.interference import Interference as Data
from beamforge.training.stream import Stream

BOTH = pytest.mark.parametrize("kind", [SumRateInterference, MaxMinInterference])
UTILITY = {SumRateInterference: SumRate, MaxMinInterference: MinRate}


def copy(kind, std=0.3, seed=0, **settings):
    return all_random(kind(checkpoint="random", **settings), std, seed)


def channels(K, N, batch=4, seed=0, dtype=torch.complex128):
    return torch.randn(batch, K, K, N, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def asked(kind, limit=2.0, weights=1.0):
    return Problem(UTILITY[kind](weights), (PerTransmitterPower(limit),))


def beams(solver, H, noise=0.1, **question):
    with torch.no_grad():
        solution = solver.solve(asked(type(solver), **question), Network.interference(H, noise))
    assert solution.solved.all() and torch.isfinite(torch.view_as_real(solution.W)).all()
    return solution.W


# --- what it is ------------------------------------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize(("std", "rounds"), [(0.0, 1), (0.3, 1), (1.0, 1), (0.1, 3)])
def test_any_weights_conform(kind, std, rounds):
    check_solver(copy(kind, std, rounds=rounds))


@BOTH
def test_relabelled_cells_get_relabelled_beams(kind):
    H, order = channels(5, 4), torch.tensor([3, 0, 4, 1, 2])
    for rounds in (1, 2):
        solver = copy(kind, rounds=rounds)
        here = beams(solver, H[:, order][:, :, order])
        torch.testing.assert_close(here, beams(solver, H)[..., order], rtol=1e-4, atol=1e-5)


@BOTH
def test_neither_phases_nor_the_antennas_of_a_base_station_enter(kind):
    """A phase at every link's user and a rotation of each base station's antennas into more of them: same powers."""
    H = channels(3, 4)
    phase = torch.polar(torch.ones(4, 1, 3, 1).double(), torch.rand(4, 1, 3, 1).double() * 6)
    turned = torch.linalg.qr(torch.randn(4, 3, 9, 4, dtype=torch.complex128))[0].mH
    network, other = Network.interference(H, 0.1), Network.interference(phase * H @ turned, 0.1)
    solver = copy(kind)
    there, here = beams(solver, H), beams(solver, phase * H @ turned)
    torch.testing.assert_close(other.apply(here).abs(), network.apply(there).abs(), rtol=1e-6, atol=1e-8)


@BOTH
def test_single_precision_is_nearly_double(kind):
    H = channels(4, 6)
    double, single = beams(copy(kind), H), beams(copy(kind), H.to(torch.complex64))
    torch.testing.assert_close(single.to(torch.complex128), double, rtol=1e-3, atol=1e-3)


# --- what base stations know and say ---------------------------------------------------------------------------------
class Threads:
    """A backhaul between threads: numbers meet on a table, and each base station takes those that are for it."""

    def __init__(self, number, table, barrier):
        self.number, self.table, self.barrier, self.scalars = number, table, barrier, 0

    def exchange(self, sent):
        assert sent.shape[1] == 1
        self.table[self.number] = sent[:, 0].clone()
        self.scalars += sent.shape[-1] - 1
        self.barrier.wait()
        heard = torch.stack([said[:, self.number] for said in self.table], -1).unsqueeze(1)
        heard[..., self.number] = 0
        self.barrier.wait()
        return heard


@BOTH
@pytest.mark.parametrize("rounds", [1, 3])
def test_base_stations_that_run_alone_send_the_same_beams(kind, rounds):
    """Each thread has the channels, power and weight of one base station, and messages: nothing else can reach it."""
    K, solver = 4, copy(kind, rounds=rounds)
    H, weights = channels(K, 3), torch.rand(4, K, dtype=torch.float64) + 0.5
    network = Network.interference(H, 0.1)
    stations = BaseStations.of(asked(kind, weights=weights).bind(network), network)
    table, barrier, found = [None] * K, threading.Barrier(K, timeout=60), [None] * K
    backhauls = [Threads(k, table, barrier) for k in range(K)]

    copies = [deepcopy(solver) for _ in range(K)]

    def run(k):
        with torch.no_grad():
            found[k] = copies[k].beams(stations.alone(k), backhauls[k])

    threads = [threading.Thread(target=run, args=(k,)) for k in range(K)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory = SharedMemory()
    with torch.no_grad():
        together = solver.beams(stations, memory)
    torch.testing.assert_close(torch.cat(found, 1), together, rtol=1e-7, atol=1e-9)
    exchanges = 2 * rounds - 1 + (kind is MaxMinInterference and rounds > 1)
    assert sum(backhaul.scalars for backhaul in backhauls) == memory.scalars == exchanges * K * (K - 1)


# --- where rounds lead -----------------------------------------------------------------------------------------------
def test_a_round_of_the_sum_rate_is_a_step_of_the_textbook():
    """Against WMMSE as published, in NumPy: its N x N eigendecompositions, and bisection for the power."""
    for K, N in ((3, 4), (4, 2)):
        H = channels(K, N, batch=2)
        weights = torch.rand(2, K, dtype=torch.float64) + 0.5
        W = [beams(copy(SumRateInterference, 0.1, rounds=rounds), H, weights=weights) for rounds in (1, 2)]
        for b in range(2):
            args = np.arange(K), np.full(K, 0.1), np.full(K, 2.0), weights[b].numpy()
            after = textbook_wmmse(H[b].numpy(), W[0][b].numpy(), *args, 1)[0]
            expected = sum_rate(H[b].numpy(), after, args[0], args[1], args[3])
            assert sum_rate(H[b].numpy(), W[1][b].numpy(), args[0], args[1], args[3]) == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize("std", [0.0, 1.0])
def test_no_round_lowers_the_sum_rate_and_they_lead_to_that_of_wmmse(std):
    H = channels(3, 4, batch=8)
    network, problem = Network.interference(H, 0.1), asked(SumRateInterference)
    rates = [network.rate(beams(copy(SumRateInterference, std, rounds=n), H)).sum(-1) for n in (1, 2, 3, 5, 100)]
    for before, after in pairwise(rates):
        assert (after >= before * (1 - 1e-9)).all()
    assert rates[-1].mean() >= 0.995 * network.rate(MulticellWMMSE().solve(problem, network).W).sum(-1).mean()


@pytest.mark.parametrize("snr_db", [-5.0, 10.0, 25.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_rounds_lead_to_the_largest_least_rate(snr_db, weighted):
    network = Interference(3, 4, snr_db).sample(8, dtype=torch.complex128).truth
    weights = (
        torch.rand(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.3 if weighted else 1.0
    )
    limit = 10 ** (snr_db / 10)
    best = PowerLimitedMaxMin().solve(asked(MaxMinInterference, limit, weights), network).W
    least = (weights * network.rate(best)).amin(-1)
    found = [
        (
            weights
            * network.rate(beams(copy(MaxMinInterference, 0.0, rounds=n), network.H, 1.0, limit=limit, weights=weights))
        ).amin(-1)
        for n in (1, 40)
    ]
    assert (found[1] >= 0.995 * least).all() and (found[0] <= least * (1 + 1e-6)).all()
    assert found[1].mean() > found[0].mean()


# --- learning, and what is refused -----------------------------------------------------------------------------------
@BOTH
def test_gradient_of_the_loss(kind):
    data = Data(cells=(3, 3), antennas=(4, 4), named_share=0.0)
    instance = Stream.training(data, seed=0, batch=4, dtype=torch.complex128).batch_at(0)
    check_gradient_of_loss(copy(kind, 0.1).double(), instance)


HOSTILE = {
    "one cell": (channels(1, 4), 0.1),
    "no channel anywhere": (torch.zeros(4, 3, 3, 2, dtype=torch.complex128), 0.1),
    "a user without a channel": (channels(3, 4) * torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1), 0.1),
    "a base station without channels": (channels(3, 4) * torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1), 0.1),
    "one antenna": (channels(4, 1), 0.1),
    "parallel channels": (channels(4, 4)[:, :, :1].expand(4, 4, 4, 4), 0.1),
    "80 dB": (channels(4, 4), 1e-8),
    "-80 dB": (channels(4, 4), 1e8),
    "160 dB between users": (channels(4, 4) * torch.logspace(-4, 4, 4).double().reshape(4, 1), 0.1),
    "30 cells": (channels(30, 4, batch=1), 0.1),
}


@BOTH
@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_any_channel_gets_beams_within_the_power(kind, rounds, name):
    H, noise = HOSTILE[name]
    for dtype in (torch.complex64, torch.complex128):
        for weights in (1.0, torch.tensor([0.0] + [1.0] * (H.shape[1] - 1)).to(dtype.to_real())):
            W = beams(copy(kind, rounds=rounds), H.to(dtype), noise, weights=weights)
            assert (W.abs().square().sum(-2) <= 2 * (1 + 1e-5)).all()


@BOTH
def test_an_instance_that_is_no_number_is_lost_alone(kind):
    H = channels(3, 4)
    whole = beams(copy(kind), H)
    H[1, 0, 0, 0] = torch.nan
    with torch.no_grad():
        solution = copy(kind).solve(asked(kind), Network.interference(H, 0.1))
    assert solution.solved.tolist() == [True, False, True, True]
    torch.testing.assert_close(solution.W[[0, 2, 3]], whole[[0, 2, 3]])


@BOTH
def test_settings_are_checked(kind):
    for settings in ({"rounds": 0}, {"width": 0}, {"layers": 0}, {"checkpoint": "nowhere.safetensors"}):
        with pytest.raises(ConfigError):
            kind(**{"checkpoint": "random", **settings})


def test_the_name_serves_both_utilities_and_refuses_total_power():
    network = Network.interference(channels(3, 4), 0.1)
    for kind in UTILITY:
        assert type(create(asked(kind), network, "multipliers", {"checkpoint": "random"})) is kind
    with pytest.raises(UnsupportedProblem):
        create(Problem(MinRate(), ()), network, "multipliers")
