"""Weighted sum rate of beams: forms of WMMSE, fractional programming, closed forms, and branch and bound."""
