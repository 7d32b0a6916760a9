"""Users of a planar array with estimated channels of several qualities, as training data of hybrid beams."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from beamforge.core.context import LABELS, checked
from beamforge.core.instance import Instance
from beamforge.scenarios.base import complex_normal, require, uniform
from beamforge.scenarios.hybrid import HybridOutage
from beamforge.training.data.isac_grid import between


@dataclass(frozen=True)
class HybridPilots:
    """``[data]`` with ``source = "hybrid-pilots"``: the scenario `HybridOutage` with pilots; a batch has one K.

    The pilot power of an instance is one of `levels` powers, evenly spaced in decibels over `pilot_db`, or uniform
    there. These kinds take turns, and the label ``group`` is the number of the kind, the uniform one last.

    users          K, uniform; its range.
    columns, rows  of the array.
    spread_deg     angular spread.
    target_db      range of the SINR targets.
    pilot_db       range of the pilot power over the noise.
    levels         fixed pilot powers, at least 2.

    Raises `ConfigError` for entries out of range.

    >>> from beamforge.scenarios.base import seeded
    >>> source = HybridPilots(users=(2, 2), columns=4, rows=2)
    >>> instance = source.build(source.draw(seeded(0, 0), count=5))
    >>> instance.labels["group"], instance.context["csi_quality"][:3, 0]
    (tensor([0, 1, 2, 3, 0]), tensor([  1.,  10., 100.], dtype=torch.float64))

    Source: the hybrid beamforming paper, Section 5; sizes and ranges are reconstructed.
    """

    users: tuple[int, int] = (1, 4)
    columns: int = 8
    rows: int = 4
    spread_deg: float = 10.0
    target_db: tuple[float, float] = (0.0, 10.0)
    pilot_db: tuple[float, float] = (0.0, 20.0)
    levels: int = 3

    def __post_init__(self) -> None:
        for name in ("users", "target_db", "pilot_db"):
            least, most = getattr(self, name)
            require(-math.inf < least <= most < math.inf, name, "finite and [least, largest]", (least, most))
        require(self.users[0] >= 1, "users", "at least 1", self.users[0])
        require(self.levels >= 2, "levels", "at least 2", self.levels)

    def scenario(self, users: int) -> HybridOutage:
        """The scenario for K users."""
        return HybridOutage(
            users,
            self.columns,
            self.rows,
            self.spread_deg,
            target_low_db=self.target_db[0],
            target_high_db=self.target_db[1],
            pilot_low_db=self.pilot_db[0],
            pilot_high_db=self.pilot_db[1],
        )

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """Random numbers of a batch, float64; each tensor has `count` rows."""
        K = between(self.users, uniform(generator, 1).item())
        group = torch.arange(count) % (self.levels + 1)
        fixed = group.double() / (self.levels - 1)
        return {
            "group": group,
            **channels(generator, count, K, self.columns, self.rows),
            "pilot_power": torch.where(group < self.levels, fixed, uniform(generator, count)),
            "pilot_noise": complex_normal(generator, count, K, self.columns * self.rows),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from the numbers drawn for them, in double precision."""
        return labelled(self.scenario(draws["target"].shape[-1]).build(draws), draws["group"])


@dataclass(frozen=True)
class HybridFeedback:
    """``[data]`` with ``source = "hybrid-feedback"``: the scenario `HybridOutage` with feedback; a batch has one K.

    The number of beams that are fed back is one of those in `beams`, or uniform among them. These kinds take turns, and
    the label ``group`` is the number of the kind, the uniform one last.

    users          K, uniform; its range.
    columns, rows  of the array.
    spread_deg     angular spread.
    target_db      range of the SINR targets.
    beams          range of the number of beams.
    samples        earlier feedbacks in the covariance.

    Raises `ConfigError` for entries out of range.

    >>> from beamforge.scenarios.base import seeded
    >>> source = HybridFeedback(users=(2, 2), columns=4, rows=2, samples=3)
    >>> instance = source.build(source.draw(seeded(0, 0), count=5))
    >>> instance.labels["group"], instance.context["covariance"].shape
    (tensor([0, 1, 2, 3, 0]), torch.Size([5, 2, 8, 8]))

    Source: the hybrid beamforming paper, Section 5.5; sizes and ranges are reconstructed.
    """

    users: tuple[int, int] = (1, 4)
    columns: int = 8
    rows: int = 4
    spread_deg: float = 5.0
    target_db: tuple[float, float] = (0.0, 10.0)
    beams: tuple[int, int] = (2, 4)
    samples: int = 16

    def __post_init__(self) -> None:
        for name in ("users", "target_db", "beams"):
            least, most = getattr(self, name)
            require(-math.inf < least <= most < math.inf, name, "finite and [least, largest]", (least, most))
        require(self.users[0] >= 1, "users", "at least 1", self.users[0])
        self.scenario(1)  # raises for other entries out of range

    def scenario(self, users: int) -> HybridOutage:
        """The scenario for K users."""
        return HybridOutage(
            users,
            self.columns,
            self.rows,
            self.spread_deg,
            target_low_db=self.target_db[0],
            target_high_db=self.target_db[1],
            feedback=True,
            beams_low=self.beams[0],
            beams_high=self.beams[1],
            samples=self.samples,
        )

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """Random numbers of a batch, float64; each tensor has `count` rows."""
        K = between(self.users, uniform(generator, 1).item())
        kinds = self.beams[1] - self.beams[0] + 1
        group = torch.arange(count) % (kinds + 1)
        return {
            "group": group,
            **channels(generator, count, K, self.columns, self.rows),
            "beams": torch.where(group < kinds, (group + 0.5) / kinds, uniform(generator, count)),
            "past": complex_normal(generator, count, self.samples, K, self.columns, self.rows),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from the numbers drawn for them, in double precision."""
        return labelled(self.scenario(draws["target"].shape[-1]).build(draws), draws["group"])


def channels(generator: torch.Generator, count: int, users: int, columns: int, rows: int) -> dict[str, Tensor]:
    """Random numbers of `count` instances of `UPA`."""
    return {
        "direction": uniform(generator, count, 2, users),
        "target": uniform(generator, count, users),
        "fading": complex_normal(generator, count, users, columns, rows),
    }


def labelled(instance: Instance, group: Tensor) -> Instance:
    """The instances with the numbers of their kinds."""
    return replace(instance, labels=checked({"group": group}, instance.truth, LABELS))
