"""Fairness-controlled beamforming: its tables and figures."""
