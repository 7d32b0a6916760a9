"""Hybrid beams under outage constraints: power and outage, published claims and measured."""
