"""Optimisation that knows nothing of wireless: the iteration loop, acceleration, implicit derivatives, quasi-Newton."""
