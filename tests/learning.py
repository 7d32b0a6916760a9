"""Checks of the loss of every trainable method, and random weights."""

from __future__ import annotations

import pytest
import torch


def all_random(solver, std, seed=0):
    """The method with all weights random; with a `std` of 3 they are far from any trained ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in solver.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return solver


def check_gradient_of_loss(solver, instance, step=1e-5):
    """Compare the derivative of the loss by every parameter, along a random direction, with central differences."""

    def loss():
        return solver.loss(instance, torch.Generator().manual_seed(0))

    found, shown = loss()
    found.backward()
    assert found.ndim == 0 and all(value.ndim == 0 and not value.requires_grad for value in shown.values())
    generator = torch.Generator().manual_seed(1)
    for name, parameter in solver.named_parameters():
        direction = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
        ends = []
        with torch.no_grad():
            for move in (step, -2 * step):
                parameter += move * direction
                ends.append(loss()[0].item())
            parameter += step * direction
        slope = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-8), name
        assert slope != 0, f"{name} has no gradient"
