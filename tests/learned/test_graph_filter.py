"""The graph filter: equivariance, range of a shift, its equation and its initial output."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.learned.graph_filter import GraphFilter


def random_filter(seed=0, **sizes):
    """A filter whose weights are all random, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    network = GraphFilter(**{"inputs": 3, "outputs": 2, "shifts": 2} | sizes).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
    return network


def graph(K, batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    nodes = torch.randn(batch, K, 3, generator=generator, dtype=torch.float64)
    return nodes, torch.rand(batch, 2, K, K, generator=generator, dtype=torch.float64)


def test_relabelled_users_get_relabelled_outputs():
    network, (nodes, shifts) = random_filter(), graph(7)
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    there = network(nodes, shifts)[:, order]
    here = network(nodes[:, order], shifts[:, :, order][..., order])
    torch.testing.assert_close(here, there, rtol=1e-10, atol=1e-12)
    assert (there - network(nodes, shifts)).abs().max() > 1e-3, "the outputs do not depend on the user"


@pytest.mark.parametrize("K", [1, 2, 30])
def test_any_number_of_users_and_each_instance_by_itself(K):
    network, (nodes, shifts) = random_filter(), graph(K)
    together = network(nodes, shifts)
    alone = torch.cat([network(nodes[i : i + 1], shifts[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_information_travels_one_edge_per_round():
    """Row k of a shift holds the influences on user k: on a path 0 <- 1 <- 2 <- 3 a change moves one user per round."""
    network = random_filter(shifts=1, rounds=2)
    nodes, shifts = graph(4)[0], torch.diag_embed(torch.ones(3, 1, 3, dtype=torch.float64), 1)
    before = network(nodes, shifts)
    nodes[:, 3] += 1
    moved = (network(nodes, shifts) - before).abs().amax((0, 2))
    assert moved[0] == 0 and (moved[1:] > 1e-6).all()


def test_one_round_is_its_equation():
    """x + out(SiLU(mix([y, S1 V y, S2 V y]))) with y = LayerNorm(x), in NumPy."""
    network, (nodes, shifts) = random_filter(rounds=1), graph(5, batch=1)
    p = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    x = nodes[0].numpy() @ p["enter.weight"].T + p["enter.bias"]
    centred = x - x.mean(-1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["rounds.0.norm.weight"]
    y = y + p["rounds.0.norm.bias"]
    sent = y @ p["rounds.0.send.weight"].T
    heard = np.concatenate([y, *(S @ sent for S in shifts[0].numpy())], -1)
    hidden = heard @ p["rounds.0.mix.weight"].T + p["rounds.0.mix.bias"]
    x = x + (hidden / (1 + np.exp(-hidden))) @ p["rounds.0.out.weight"].T + p["rounds.0.out.bias"]
    expected = x @ p["leave.weight"].T + p["leave.bias"]
    np.testing.assert_allclose(network(nodes, shifts)[0].detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_initial_output_is_zero_with_a_gradient():
    network = GraphFilter(inputs=3, outputs=2, shifts=2).double()
    nodes, shifts = graph(5)
    output = network(nodes, shifts)
    assert (output == 0).all()
    output.sum().backward()
    assert network.leave.weight.grad.abs().max() > 0
