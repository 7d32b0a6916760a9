"""Graph convolutions over users, as the hybrid beamforming paper uses them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from beamforge.core.errors import ConfigError

MOMENTUM = 0.02
"""Weight of a new batch in the running statistics of the inputs."""


class GraphConvolution(nn.Module):
    """``sum_{d=0..degree} S^d X W_d + b``: X [B, K, inputs] and shifts S [B, K, K] to [B, K, outputs].

    >>> GraphConvolution(3, 2, degree=1)(torch.ones(4, 5, 3), torch.ones(4, 5, 5)).shape
    torch.Size([4, 5, 2])

    Source: the hybrid beamforming paper, Eq. 28.
    """

    def __init__(self, inputs: int, outputs: int, degree: int) -> None:
        super().__init__()
        self.taps = nn.ModuleList(nn.Linear(inputs, outputs, bias=not d) for d in range(degree + 1))

    def forward(self, X: Tensor, S: Tensor) -> Tensor:
        total, shifted = self.taps[0](X), X
        for tap in self.taps[1:]:
            shifted = S @ shifted
            total = total + tap(shifted)
        return total


class BoundedExponential(nn.Module):
    """``exp(m tanh(x / m))``: positive, and between ``exp(-m)`` and ``exp(m)``."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        return (self.bound * torch.tanh(x / self.bound)).exp()

    def inverse(self, value: float) -> float:
        """The x for which this is `value`."""
        return self.bound * math.atanh(math.log(value) / self.bound)


class InputNorm(nn.Module):
    """Batch normalisation of [B, K, n] by running statistics, in training as well.

    A batch has few users, so that its own statistics would be noise in the inputs.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("batches", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.batches += 1
                share = max(MOMENTUM, 1 / float(self.batches))
                rows = x.flatten(0, -2).to(self.mean)
                before = self.mean.clone()
                self.mean.lerp_(rows.mean(0), share)
                spread = ((rows - before) * (rows - self.mean)).mean(0)
                self.variance.lerp_(spread, share if self.batches > 1 else 1.0)
        return (x - self.mean) / (self.variance + 1e-5).sqrt()


class GraphNetwork(nn.Module):
    """Layers of graph convolutions with SiLU between them, normalised inputs and positive bounded outputs.

    degree  of every layer; with 0 every user is mapped on its own.
    start   outputs before training.

    Raises `ConfigError` for sizes out of range.

    >>> network = GraphNetwork(3, start=(1.0, 0.1))
    >>> network(torch.ones(4, 5, 3), torch.ones(4, 5, 5)).shape
    torch.Size([4, 5, 2])
    """

    def __init__(
        self,
        inputs: int,
        start: tuple[float, ...],
        width: int = 16,
        layers: int = 3,
        degree: int = 2,
        bound: float = 6.0,
    ) -> None:
        super().__init__()
        if min(width, layers) < 1 or degree < 0:
            raise ConfigError(f"width and layers must be at least 1 and degree at least 0, got {width, layers, degree}")
        sizes = (inputs, *[width] * (layers - 1), len(start))
        self.norm = InputNorm(inputs)
        self.layers = nn.ModuleList(GraphConvolution(sizes[i], sizes[i + 1], degree) for i in range(layers))
        self.act, self.out = nn.SiLU(), BoundedExponential(bound)
        with torch.no_grad():
            for tap in self.layers[-1].taps:  # type: ignore[union-attr]
                tap.weight.zero_()
                if tap.bias is not None:
                    tap.bias.copy_(torch.tensor([self.out.inverse(value) for value in start]))

    def forward(self, X: Tensor, S: Tensor) -> Tensor:
        x = self.norm(X)
        for place, layer in enumerate(self.layers):
            x = layer(x if place == 0 else self.act(x), S)
        found: Tensor = self.out(x)
        return found
