"""Independent evaluation of joint sensing and communication in NumPy: sum rates and constraint violations."""

from __future__ import annotations

import numpy as np

from beamforge.bench.statistics import Values
from beamforge.core.instance import Instance

TOLERANCE = 1e-6
"""Largest relative violation of a constraint that counts as feasible."""


def score(instance: Instance, beams: Values) -> tuple[Values, Values]:
    """Sum rate [B] of beams [B, N, D], and their largest relative violation [B] of a constraint (negative: feasible).

    instance  of the scenario `isac`; the first K beams carry the users' data, the others are sensing streams.
    """
    H, noise = instance.truth.channel.cpu().numpy(), instance.truth.noise.cpu().numpy()
    context = {name: value.cpu().numpy() for name, value in instance.context.items()}
    received = np.abs(H @ beams) ** 2
    signal = np.diagonal(received, axis1=1, axis2=2)
    rate = np.log2(1 + signal / (received.sum(-1) - signal + noise)).sum(-1)
    n = np.arange(beams.shape[1])[:, None]
    a = np.exp(1j * np.pi * n * np.sin(context["target_angles"])[:, None, :]) / np.sqrt(len(n))
    power = (np.abs(a.conj().swapaxes(1, 2) @ beams) ** 2).sum(-1)
    snr = np.abs(context["target_gain"]) ** 2 * power / context["sensing_noise"][:, None]
    shortfall = (1 - snr / context["sensing_snr_target"][:, None]).max(-1)
    excess_power = (np.abs(beams) ** 2).sum((1, 2)) / context["p_max"] - 1
    return rate, np.maximum(shortfall, excess_power)
