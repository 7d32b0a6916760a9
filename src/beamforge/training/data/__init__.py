"""Kinds of training data, for the ``[data]`` section of a recipe."""
