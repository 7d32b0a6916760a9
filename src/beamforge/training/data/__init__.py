"""Training data by name, for the ``[data]`` section of a recipe."""
