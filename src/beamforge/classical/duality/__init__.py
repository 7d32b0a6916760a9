"""Least power and max-min fairness by uplink-downlink duality."""
