"""The types: networks, problems, instances, solvers and their answers, and the one scorer."""
