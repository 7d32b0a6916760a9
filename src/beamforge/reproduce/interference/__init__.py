"""The decentralised beamforming paper: its tables."""
