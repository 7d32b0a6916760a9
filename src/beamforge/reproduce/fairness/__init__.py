"""Fairness-controlled beamforming: the paper's tables and figures."""
