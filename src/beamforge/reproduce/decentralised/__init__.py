"""Decentralised beamforming for MISO interference channels: the paper's table and figures, and more comparisons."""
