"""Learned multipliers compared with classical methods."""
