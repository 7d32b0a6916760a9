"""Training of beams for an outage constraint in groups of instances: loss, prices, and choice among weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from beamforge.core.instance import Instance
from beamforge.training.outage import Measured, OutageConstraint

KINDS, USERS = 4, 8
"""Most kinds of channel knowledge, and most users, with a price of their own; more users share that of the most."""

PACE = 0.05
"""Weight of a batch in the mean power of its group."""

VIOLATION_COST = 5.0
"""Cost in validation of outage above the nominal one, watts per unit, an upper bound on the prices (Eq. 54)."""

LEAST_SINR = 1e-4
"""Least ratio of a SINR to its target whose logarithm counts as a margin."""


class OutageTraining(nn.Module):
    """Power subject to an outage constraint in every group: a kind of channel knowledge with a number of users.

    The loss is the sum over the groups of a batch of the mean power over its running mean, which is a constant, and the
    priced `OutageConstraint`. (The hybrid beamforming paper's Eq. 49 has the mean power of the batch; the optima of
    each group are the same up to the scale of its price, and groups of little power train as fast as others.)

    probability  nominal outage.
    form         of the constraint, see `OutageConstraint`.
    """

    scale: Tensor

    def __init__(self, probability: float, form: str) -> None:
        super().__init__()
        step = 0.5 if form == "annealed" else 0.05
        price = 4.0 if form == "annealed" else 0.5
        self.constraint = OutageConstraint(KINDS * USERS, probability, form, price, step)
        self.register_buffer("scale", torch.zeros(KINDS * USERS))

    def forward(self, instance: Instance, W: Tensor, power: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and figures of beams W [B, N, K] with their power [B]."""
        users = instance.truth.users
        kind = instance.labels.get("group")
        kind = torch.zeros(len(power), dtype=torch.long, device=power.device) if kind is None else kind
        group = kind + KINDS * (min(users, USERS) - 1)
        ratio = instance.truth.sinr(W) / instance.context["sinr_target"]
        total, measured = self.constraint(ratio.clamp_min(LEAST_SINR).log(), group)
        total = total + self.relative(power, group)
        figures = {"power": power.detach().mean(), "users": power.new_tensor(float(users))}
        for g, one in measured.items():
            name = g % KINDS + 1
            figures |= {f"outage_{name}": one.outage, f"quantile_{name}": one.quantile}
            figures[f"price_{name}"] = self.constraint.price[g].detach().clone()
        return total, figures

    def relative(self, power: Tensor, group: Tensor) -> Tensor:
        """Sum over the groups of a batch of their mean power over its running mean."""
        total = power.new_zeros(())
        for g in group.unique().tolist():
            mean = power[group == g].mean()
            with torch.no_grad():
                before = self.scale[g] if self.scale[g] > 0 else mean
                if self.training:
                    self.scale[g] = before + PACE * (mean - before)
                scale = self.scale[g] if self.scale[g] > 0 else mean
            total = total + mean / scale.clamp_min(1e-6)
        return total

    def adapt(self, figures: Mapping[str, float]) -> None:
        """Update the prices of the groups of a batch."""
        first = KINDS * (min(round(figures["users"]), USERS) - 1)
        seen = {}
        for kind in range(KINDS):
            if f"outage_{kind + 1}" in figures:
                pair = (torch.tensor(figures[f"{name}_{kind + 1}"]) for name in ("outage", "quantile"))
                seen[first + kind] = Measured(*pair)
        self.constraint.adapt(seen)

    def criterion(self, figures: Mapping[str, float]) -> float:
        """Mean power plus the cost of outage above the nominal one, of each kind of channel knowledge (Eq. 54)."""
        outages = [value for name, value in figures.items() if name.startswith("outage_")]
        excess = sum(max(value - self.constraint.probability, 0.0) for value in outages)
        return figures["power"] + VIOLATION_COST * excess
