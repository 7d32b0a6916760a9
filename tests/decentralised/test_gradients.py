"""Base stations that train: parts and messages give the gradient of the whole, found here in one process."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from stations import Polite, question
from torch.distributed import TCPStore

from beamforge.core.utilities import MinRate, SumRate
from beamforge.decentralised.backhaul import SharedMemory
from beamforge.decentralised.base_stations import BaseStations
from beamforge.decentralised.gradients import own_part, rates, share_gradients
from beamforge.decentralised.mailbox import Mailbox

STEPS, RATE = 3, 0.05


def everybody(goal, number):
    problem, instance = question(count=6, goal=goal, seed=number)
    return BaseStations.of(problem.bind(instance.truth), instance.truth), instance.truth


def step(method, optimiser, stations, backhaul, least):
    optimiser.zero_grad()
    weighted = stations.weights * rates(stations, method.beams(stations, backhaul), backhaul)
    (-own_part(weighted, stations, backhaul, least=least).mean()).backward()
    share_gradients(method.parameters(), stations, backhaul)
    gradient = torch.cat([each.grad.flatten() for each in method.parameters()])
    optimiser.step()
    return gradient


def train(port, number, least, results):
    """One base station; what it has of others' channels is left behind before it starts."""
    torch.set_num_threads(1)
    method = Polite()
    optimiser = torch.optim.Adam(method.parameters(), RATE)
    backhaul = Mailbox(TCPStore("127.0.0.1", port, is_master=False), number, 60)
    goal = MinRate if least else SumRate
    found = [step(method, optimiser, everybody(goal, n)[0].alone(number), backhaul, least) for n in range(STEPS)]
    results.put((number, [each.tolist() for each in found], backhaul.scalars))


@pytest.mark.parametrize("least", [False, True])
def test_processes_train_as_one_process_does(least):
    method = Polite()
    optimiser = torch.optim.Adam(method.parameters(), RATE)
    expected = []
    for n in range(STEPS):
        stations, network = everybody(MinRate if least else SumRate, n)
        optimiser.zero_grad()
        weighted = stations.weights * network.rate(method.beams(stations, SharedMemory()).mT)
        (-(weighted.amin(-1) if least else weighted.sum(-1)).mean()).backward()
        expected.append(torch.cat([each.grad.flatten() for each in method.parameters()]))
        optimiser.step()

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["beamforge.decentralised.launch"])
    results = context.Queue()
    processes = [context.Process(target=train, args=(store.port, k, least, results)) for k in range(3)]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert found[0][1] == found[1][1] == found[2][1], "base stations take different steps"
    for n, gradient in enumerate(expected):
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close(torch.tensor(found[0][1][n], dtype=gradient.dtype), gradient, rtol=1e-8, atol=1e-10)
    # forwards: three rounds, the rates and, where asked for, the least; backwards: rounds and rates; and the parameters
    assert found[0][2] == STEPS * 2 * (3 + 1 + least + 3 + 1 + 1)


@pytest.mark.parametrize("least", [False, True])
def test_one_process_has_all_parts(least):
    stations, network = everybody(MinRate if least else SumRate, 0)
    method = Polite()
    weighted = stations.weights * rates(stations, method.beams(stations, SharedMemory()), SharedMemory())
    whole = stations.weights * network.rate(method.solve(*question(count=6, goal=MinRate if least else SumRate)).W)
    part = own_part(weighted, stations, SharedMemory(), least=least)
    torch.testing.assert_close(part, whole.amin(-1) if least else whole.sum(-1))
