"""Figures of solutions for people: `rate_cdf`, `trace`, `frontier` and `beam_pattern`, each a matplotlib figure."""

from beamforge.plot.solutions import beam_pattern, frontier, rate_cdf, trace

__all__ = ["beam_pattern", "frontier", "rate_cdf", "trace"]
