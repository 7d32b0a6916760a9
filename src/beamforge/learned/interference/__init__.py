"""Learned methods for interference channels, decentralised and centralised."""
