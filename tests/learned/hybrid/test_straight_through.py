"""Straight-through selection: the codeword itself forward, the softmin's gradient backward."""

from __future__ import annotations

import torch

from beamforge.learned.hybrid.straight_through import SHARPNESS, selected


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_forward_is_the_codeword_of_least_cost():
    costs, words = random(5, 7).exp(), random(5, 7, 3, dtype=torch.complex128, seed=1)
    expected = words[torch.arange(5), costs.argmin(-1)]
    torch.testing.assert_close(selected(costs, words), expected, atol=1e-14, rtol=0)


def test_backward_is_the_softmin_by_finite_differences():
    costs, words = random(2, 5).exp().requires_grad_(), random(2, 5, 3, dtype=torch.complex128, seed=1)
    probe = random(2, 3, dtype=torch.complex128, seed=2)
    scale = costs.detach().amin(-1, keepdim=True)

    def soft(costs):
        weights = torch.exp(-SHARPNESS * costs / scale)
        weights = weights / weights.sum(-1, keepdim=True)
        mean = torch.einsum("bc,bcn->bn", weights.to(words.dtype), words)
        return (probe.conj() * mean).real.sum()

    (probe.conj() * selected(costs, words)).real.sum().backward()
    step = 1e-6
    for place in ((0, 0), (0, 3), (1, 2)):
        move = torch.zeros_like(costs)
        move[place] = step
        with torch.no_grad():
            slope = (soft(costs + move) - soft(costs - move)) / (2 * step)
        torch.testing.assert_close(costs.grad[place], slope, rtol=1e-6, atol=1e-9)


def test_impossible_codewords_have_no_part_and_no_gradient():
    costs = torch.tensor([[2.0, torch.inf, 1.0], [torch.inf] * 3], requires_grad=True)
    words = torch.eye(3, dtype=torch.complex64).expand(2, 3, 3)
    found = selected(costs, words)
    assert torch.equal(found.real[0].round(), torch.tensor([0.0, 0.0, 1.0])) and torch.isfinite(found.real).all()
    found.real.square().sum().backward()
    assert torch.isfinite(costs.grad).all() and costs.grad[0, 1] == 0 and (costs.grad[1] == 0).all()
    assert costs.grad[0, 2] < 0 < costs.grad[0, 0]
