"""Learned beams under a prescribed fairness."""
