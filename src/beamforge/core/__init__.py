"""The types: networks, problems, instances, solvers and solutions, and the function that scores beams."""
