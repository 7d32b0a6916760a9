"""Decentralised beamforming: local knowledge of base stations and the messages that they exchange."""
