"""General optimisation: the iteration loop, acceleration, implicit derivatives, quasi-Newton, the simplex."""
