"""Independent evaluation of beams under outage constraints in NumPy."""

from __future__ import annotations

import numpy as np

from beamforge.bench.statistics import Values
from beamforge.core.instance import Instance

TOLERANCE = 1e-6
"""Relative shortfall of a SINR from its target that counts as rounding."""


def score(instance: Instance, beams: Values) -> tuple[Values, Values]:
    """Radiated power [B] of beams [B, N, K], and the share [B] of users whose true SINR is below their target."""
    H, noise = instance.truth.channel.cpu().numpy(), instance.truth.noise.cpu().numpy()
    received = np.abs(H @ beams) ** 2
    signal = np.diagonal(received, axis1=1, axis2=2)
    interference = received.sum(-1) - signal
    target = instance.context["sinr_target"].cpu().numpy()
    missed = signal / (interference + noise) < target * (1 - TOLERANCE)
    return (np.abs(beams) ** 2).sum((1, 2)), missed.mean(-1)
