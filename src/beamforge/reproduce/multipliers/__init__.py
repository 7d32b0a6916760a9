"""Learned multipliers beside the classical methods."""
