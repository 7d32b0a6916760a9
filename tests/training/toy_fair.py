"""A toy method with a price: like `toy`, with a target for the mean of the least rates, met by dual ascent."""

from __future__ import annotations

import sys

import torch
from training import toy

from beamforge.registry import MODELS
from beamforge.training.dual_ascent import DualAscent

RECIPE = (
    toy.RECIPE.replace('"toy"', '"toy-fair"')
    .replace("width = 8", "width = 8\ndropout = 0.0")
    .replace("steps = 40", "steps = 20\nprecision = 64")
    .replace("validate_every = 40", "validate_every = 20")
)


class ToyFair(toy.Toy):
    """The priced term is a mean over the batch, so two processes give exactly the results of one."""

    def __init__(self, width: int = 4, dropout: float = 0.0):
        super().__init__(width, dropout)
        self.dual = DualAscent(target=3.0, price=0.1, step=0.05)

    def loss(self, instance, generator):
        loss, figures = super().loss(instance, generator)
        least = instance.truth.rate(self.beams(instance.observation.network)).amin(-1).mean()
        return loss + self.dual.price * (self.dual.target - least), {**figures, "price": self.dual.price.clone()}

    def adapt(self, figures):
        self.dual.adapt(figures["least_rate"])


MODEL = ("toy-fair", ToyFair)

if __name__ == "__main__":
    from beamforge.cli import main

    MODELS["toy-fair"] = ToyFair
    torch.set_num_threads(1)
    sys.exit(main())
