"""Published tables and figures, measured anew: one file for each paper, and one for this library's own method."""

from __future__ import annotations

from collections.abc import Mapping

from beamforge.reproduce.exhibits import Paper
from beamforge.reproduce.multipliers import multipliers

PAPERS: Mapping[str, Paper] = {"multipliers": multipliers}
"""By name; a reproduction is one file, and one line here."""
