"""Limits on the share of users in outage, as terms of a training loss with a price for each group of instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from beamforge.core.errors import ConfigError

FORMS = ("annealed", "quantile")
"""Forms of the constraint: `annealed` and `quantile`."""

SHARPEST, REACH, PACE = 20.0, 3.0, 0.05
"""Annealing: largest beta, the product of beta and the violation that it aims at, and the weight of a new beta."""


LARGE = 4.0
"""Price above which the step of a price is proportional to it."""

DAMPING = {"annealed": 8.0, "quantile": 0.8}
"""Exponent of the factor on a price, per unit of recent excess."""

RECENT = 0.1
"""Weight of a new excess in the recent one."""


class Measured(NamedTuple):
    """What a batch says of a group: the share of users in `outage`, and the `quantile` (1 - probability) of their
    violations."""

    outage: Tensor
    quantile: Tensor


class OutageConstraint(nn.Module):
    """``P(margin < 0) <= probability`` in every group of instances, by primal-dual training.

    The term of group g in the loss is ``price_g C_g``. With margins m, such as ``log(SINR / target)``, C_g is

    annealed  ``(1 - probability) - mean sigmoid(beta_g m)``. beta_g follows ``min(20, 3 / max(v, 0))`` with v the
              quantile (1 - probability) of the violations -m: smooth while users are far from their targets.
    quantile  v itself, the rival: only the users next to the quantile have a gradient.

    After a step, ``price_g <- max(price_g + step excess_g, 0)`` for the groups of its batch, where the excess is the
    share of users in outage minus the probability, or v; above a price of 4 the step is proportional to it. In the loss
    a price has the factor ``exp(d recent_g)`` with the running mean of the excess (d = 8 or 0.8): without it prices and
    outage oscillate, since the weights follow the prices slowly. Near the nominal outage it is one.

    groups       number of groups.
    probability  nominal outage.

    Raises `ConfigError` for numbers out of range.

    >>> limit = OutageConstraint(groups=1, probability=0.5, price=2.0)
    >>> limit.adapt({0: Measured(torch.tensor(0.75), torch.tensor(0.1))})
    >>> round(limit.price.item(), 6)
    2.075

    Source: the hybrid beamforming paper, Eqs. 49 to 53; the excess of the annealed form is exact here, and not that of
    the smooth step. The factor on prices and the proportional step are ours.
    """

    price: Tensor
    beta: Tensor
    recent: Tensor

    def __init__(
        self, groups: int, probability: float, form: str = "annealed", price: float = 3.0, step: float = 0.3
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ConfigError(f"form of an outage constraint must be {' or '.join(FORMS)}, got {form!r}")
        if not 0 < probability < 1:
            raise ConfigError(f"outage must be between 0 and 1, got {probability:g}")
        self.probability, self.form, self.step = probability, form, step
        self.register_buffer("price", torch.full((groups,), price))
        self.register_buffer("beta", torch.full((groups,), 2.0))
        self.register_buffer("recent", torch.zeros(groups))

    def forward(self, margin: Tensor, group: Tensor) -> tuple[Tensor, Mapping[int, Measured]]:
        """The terms of all groups of a batch, and what it says of them; margin [B, K], group integer [B]."""
        total, seen = margin.new_zeros(()), {}
        for g in group.unique().tolist():
            own = margin[group == g].flatten()
            quantile = torch.quantile(-own, 1 - self.probability)
            if self.form == "annealed":
                excess = (1 - self.probability) - torch.sigmoid(self.beta[g] * own).mean()
            else:
                excess = quantile
            total = total + self.price[g] * (DAMPING[self.form] * self.recent[g]).exp() * excess
            seen[g] = Measured((own.detach() < 0).to(own.dtype).mean(), quantile.detach())
        return total, seen

    @torch.no_grad()
    def adapt(self, seen: Mapping[int, Measured]) -> None:
        """Prices and betas after a step."""
        for g, measured in seen.items():
            annealed = self.form == "annealed"
            excess = measured.outage - self.probability if annealed else measured.quantile
            step = self.step * max(1.0, float(self.price[g]) / LARGE)
            self.price[g] = (self.price[g] + step * float(excess)).clamp_min(0)
            self.recent[g] += RECENT * (excess - self.recent[g])
            aim = min(SHARPEST, REACH / max(float(measured.quantile), 1e-9))
            self.beta[g] += PACE * (aim - self.beta[g])

    def excess(self, seen: Mapping[int, Measured]) -> float:
        """``sum_g max(outage_g - probability, 0)``, for the choice among weights (Eq. 54)."""
        return sum(max(float(measured.outage) - self.probability, 0.0) for measured in seen.values())
