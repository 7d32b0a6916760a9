"""Conversion between decibels and linear units, and thermal noise."""

from __future__ import annotations

import math

BOLTZMANN = 1.380649e-23
"""Boltzmann constant, J/K (exact in the SI)."""


def from_db(value_db: float) -> float:
    """Linear ratio of a level in decibels: ``10^(dB/10)``.

    >>> from_db(20.0)
    100.0
    """
    return 10.0 ** (value_db / 10)


def to_db(ratio: float) -> float:
    """Decibels of a linear power ratio: ``10 log10(ratio)``.

    >>> to_db(100.0)
    20.0
    """
    return 10 * math.log10(ratio)


def from_dbm(value_dbm: float) -> float:
    """Watts of a level in dBm.

    >>> from_dbm(30.0)
    1.0
    """
    return from_db(value_dbm - 30)


def thermal_noise(bandwidth: float, noise_figure_db: float = 0.0, temperature: float = 290.0) -> float:
    """Noise power ``k T B F`` in watts over `bandwidth` hertz.

    >>> f"{thermal_noise(20e6, noise_figure_db=7.0):.3e}"
    '4.013e-13'
    """
    return BOLTZMANN * temperature * bandwidth * from_db(noise_figure_db)
