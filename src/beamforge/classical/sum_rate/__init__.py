"""Weighted sum rate of beams: WMMSE in two forms, fractional programming, and the certified optimum."""
