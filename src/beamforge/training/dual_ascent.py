"""Dual ascent on the price (Lagrange multiplier) of a constraint on a mean during training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from beamforge.core.errors import ConfigError


class DualAscent(nn.Module):
    """``lambda <- max(lambda + step (target - value), 0)`` after a training step, unless within `tolerance`.

    price  initial lambda, which only saves time; lambda is a buffer, so checkpoints and weights contain it.

    Raises `ConfigError` for numbers out of range.

    >>> dual = DualAscent(target=0.86, price=1.0)
    >>> dual.adapt(0.66)
    >>> round(dual.price.item(), 6)
    1.002
    >>> dual.adapt(0.858)  # within the tolerance
    >>> round(dual.price.item(), 6)
    1.002

    Source: the fairness-controlled beamforming paper's Algorithm 1, lines 10 to 14. The limit
    at zero is ours: a negative price would reward violations.
    """

    price: Tensor

    def __init__(self, target: float, price: float = 1.0, step: float = 0.01, tolerance: float = 0.003) -> None:
        super().__init__()
        if not (price >= 0 and step > 0 and tolerance >= 0):
            numbers = f"price {price:g}, step {step:g} and tolerance {tolerance:g}"
            raise ConfigError(f"price and tolerance must not be negative, and step be positive, got {numbers}")
        self.target, self.step, self.tolerance = target, step, tolerance
        self.register_buffer("price", torch.tensor(float(price)))

    def penalty(self, value: Tensor) -> Tensor:
        """``lambda max(target - value, 0)``, zero where the constraint holds."""
        return self.price * (self.target - value).clamp_min(0)

    @torch.no_grad()
    def adapt(self, value: float) -> None:
        """Raise the price if `value` is below the target, lower it if above."""
        if abs(value - self.target) > self.tolerance:
            self.price.add_(self.step * (self.target - value)).clamp_min_(0)
