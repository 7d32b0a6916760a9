"""Decentralised beamforming for the MISO interference channel: the paper's table and figures, and what it left out."""
