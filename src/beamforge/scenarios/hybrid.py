"""Hybrid beamforming with imperfect channel knowledge: a planar array, a DFT codebook, pilots or feedback."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from beamforge.core.hybrid import dft_codebook
from beamforge.core.instance import Instance
from beamforge.scenarios.base import Scenario
from beamforge.scenarios.csi import PilotCSI
from beamforge.scenarios.feedback import FeedbackCSI
from beamforge.scenarios.upa import UPA


@dataclass(frozen=True)
class HybridOutage(Scenario):
    """Users of an 8x4 planar array with SINR targets, estimated channels, and a codebook of 64 DFT beams.

    Channels and targets are those of `UPA`. By default they are estimated from pilots (`PilotCSI`); with ``feedback``
    they are fed back as quantised DFT beams (`FeedbackCSI`), and the covariance is that of `samples` earlier feedbacks.
    The codebook is the DFT of the array, twice oversampled along its columns.

    None of 5000 instances of 4 users needs more than the power limit with perfect channel knowledge and 5 RF chains
    (``python benchmarks/hybrid.py power --count 5000``), so none are left out as infeasible.

    ``context``: ``p_max`` [B], ``sinr_target`` [B, K], ``csi_quality``, ``covariance`` [B, K, N, N] and ``codebook``
    [B, N, C]. Raises `ConfigError` for fields out of range.

    Source: the hybrid beamforming paper, Section 5.1; sizes and ranges, which it leaves open, are a reconstruction.

    >>> instance = HybridOutage(users=2).sample(count=3)
    >>> instance.context["codebook"].shape, instance.context["csi_quality"].shape
    (torch.Size([3, 32, 64]), torch.Size([3, 2]))
    """

    users: int = 4
    columns: int = 8
    rows: int = 4
    angular_spread_deg: float = 10.0
    p_max: float = 100.0
    target_low_db: float = 0.0
    target_high_db: float = 10.0
    pilot_low_db: float = 0.0
    pilot_high_db: float = 20.0
    feedback: bool = False
    beams_low: int = 2
    beams_high: int = 4
    samples: int = 16

    def __post_init__(self) -> None:
        self.csi  # noqa: B018  raises for fields out of range

    @property
    def csi(self) -> PilotCSI | FeedbackCSI:
        """The scenario without its codebook."""
        targets = (self.p_max, self.target_low_db, self.target_high_db)
        channels = UPA(self.users, self.columns, self.rows, self.angular_spread_deg, *targets)
        if self.feedback:
            return FeedbackCSI(channels, self.beams_low, self.beams_high, self.samples)
        return PilotCSI(channels, self.pilot_low_db, self.pilot_high_db)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        return self.csi.draw(generator)

    def build(self, draws: dict[str, Tensor]) -> Instance:
        instance = self.csi.build(draws)
        codebook = dft_codebook(self.columns, self.rows, oversampling=(2, 1))
        context = {**instance.context, "codebook": codebook.expand(len(draws["target"]), -1, -1)}
        return replace(instance, observation=replace(instance.observation, context=context))

    def covariance(self, draws: dict[str, Tensor]) -> Tensor:
        return self.csi.channels.covariance(draws)
