"""Joint sensing and communication scored anew, in NumPy alone: what is claimed to be feasible is looked at twice."""

from __future__ import annotations

import numpy as np

from beamforge.bench.statistics import Values
from beamforge.core.instance import Instance

TOLERANCE = 1e-6
"""Share by which a limit may be missed."""


def score(instance: Instance, beams: Values) -> tuple[Values, Values]:
    """Sum rate [B] of beams [B, N, D], and the largest share [B] by which they break a limit (negative: none).

    instance  of the scenario `isac`; the first K beams carry the users' data, all are seen by the targets.
    """
    H, noise = instance.truth.channel.cpu().numpy(), instance.truth.noise.cpu().numpy()
    context = {name: value.cpu().numpy() for name, value in instance.context.items()}
    heard = np.abs(H @ beams) ** 2
    signal = np.diagonal(heard, axis1=1, axis2=2)
    rate = np.log2(1 + signal / (heard.sum(-1) - signal + noise)).sum(-1)
    n = np.arange(beams.shape[1])[:, None]
    a = np.exp(1j * np.pi * n * np.sin(context["target_angles"])[:, None, :]) / np.sqrt(len(n))
    seen = (np.abs(a.conj().swapaxes(1, 2) @ beams) ** 2).sum(-1)
    snr = np.abs(context["target_gain"]) ** 2 * seen / context["sensing_noise"][:, None]
    missed = (1 - snr / context["sensing_snr_target"][:, None]).max(-1)
    spent = (np.abs(beams) ** 2).sum((1, 2)) / context["p_max"] - 1
    return rate, np.maximum(missed, spent)
