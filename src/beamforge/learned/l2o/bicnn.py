"""Convolutions along users and along antennas that improve beams step by step, after the bi-directional CNN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from beamforge.classical.structure import unit
from beamforge.core.network import squared_magnitude
from beamforge.learned.l2o.ascent import gradient, of_full_power
from beamforge.learned.l2o.direct import Direct
from beamforge.learned.l2o.graph_transformer import settling
from beamforge.learned.l2o.masks import Masks


class BiCNN(Direct):
    """Weighted sum rate by `blocks` updates of the beams, each by convolutions along users and along antennas.

    The input of a block is an image of K x N pixels: the channels, the beams and the gradient of the rate. Two layers
    of circular one-dimensional convolutions along both axes give an update of the beams, which are then scaled to full
    power; an untrained block changes nothing. Convolutions depend on the order of users and antennas, so they are
    sorted by falling gain first, and the phase of each user's channel is settled. Any number of users and antennas.

    checkpoint      "shipped", "random" (untrained), or a file that `beamforge train` wrote.
    blocks, width   numbers of updates and of channels of the hidden layer, if the weights are random.
    reach           pixels that a convolution sees on each side, if the weights are random.

    Source: the bi-directional convolutional network, trained by learning to optimise under a curriculum, that the
    transformer-based learning-to-optimise paper compares with (its reference 13). Sizes and inputs are ours.
    """

    model = "bicnn"

    def __init__(self, checkpoint: str = "shipped", blocks: int = 4, width: int = 24, reach: int = 3) -> None:
        super(Direct, self).__init__()
        self._build(checkpoint, blocks=blocks, width=width, reach=reach)

    def network(self, **form: Any) -> nn.Module:
        return ConvolutionalSteps(**form)

    def beams(self, H: Tensor, weights: Tensor) -> Tensor:
        power = squared_magnitude(H)
        users, antennas = (power.sum(axis).argsort(dim=-1, descending=True, stable=True) for axis in (-1, -2))
        H = (settling(H) * H).take_along_dim(users.unsqueeze(-1), -2).take_along_dim(antennas.unsqueeze(-2), -1)
        W = super().beams(H, weights.take_along_dim(users, -1))
        W = W.take_along_dim(users.argsort(-1).unsqueeze(-2), -1)
        return W.take_along_dim(antennas.argsort(-1).unsqueeze(-1), -2)


class ConvolutionalSteps(nn.Module):
    """Beams after all blocks."""

    def __init__(self, blocks: int, width: int, reach: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, reach) for _ in range(blocks))

    def forward(self, H: Tensor, W: Tensor, weights: Tensor, masks: Masks) -> Tensor:
        """Beams [B, N, K]."""
        present = masks.samples()
        size = present.sum((-2, -1)).clamp_min(1).to(weights).sqrt()[:, None, None]
        channel = unit(H.mH).mH * size / masks.active().to(weights).sqrt()[:, None, None]
        for block in self.blocks:
            slope = of_full_power(gradient(H, W, weights)[0])
            image = torch.stack([channel, W.mH * size, slope.mH * size], 1)
            image = torch.cat([image.real, image.imag], 1).to(weights.dtype)
            real, imaginary = block(image, present.unsqueeze(1)).unbind(1)
            W = of_full_power(torch.where(present, W.mH + torch.complex(real, imaginary) / size, 0).mH.resolve_conj())
        return W


class Block(nn.Module):
    """``[B, 6, K, N] -> [B, 2, K, N]`` by two layers of convolutions along both axes."""

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.first, self.second = Convolutions(6, width, reach), Convolutions(width, width, reach)
        self.out = nn.Conv2d(width, 2, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, present: Tensor) -> Tensor:
        """The update of the beams, real and imaginary parts."""
        x = torch.nn.functional.gelu(self.first(image, present))
        x = x + torch.nn.functional.gelu(self.second(x, present))
        found: Tensor = self.out(x)
        return found


class Convolutions(nn.Module):
    """The sum of a convolution along users and one along antennas, over the users and antennas that take part."""

    def __init__(self, inputs: int, outputs: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.users = nn.Conv2d(inputs, outputs, (2 * reach + 1, 1))
        self.antennas = nn.Conv2d(inputs, outputs, (1, 2 * reach + 1))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """[B, outputs, K, N] from [B, inputs, K, N]."""
        x = torch.where(present, x, 0)
        return self.users(around(x, self.reach, -2)) + self.antennas(around(x, self.reach, -1))


def around(x: Tensor, reach: int, axis: int) -> Tensor:
    """x with `reach` entries of its other end added on both sides of an axis, as often as that takes.

    >>> around(torch.tensor([0, 1, 2]), 1, -1).tolist(), around(torch.tensor([0, 1]), 3, -1).tolist()
    ([2, 0, 1, 2, 0], [1, 0, 1, 0, 1, 0, 1, 0])
    """
    length = x.shape[axis]
    return x.index_select(axis, torch.arange(-reach, length + reach, device=x.device) % length)
