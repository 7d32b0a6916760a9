"""Learned methods for the sum rate under a prescribed fairness."""
