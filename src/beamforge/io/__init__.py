"""Files of channels, solutions and trained weights, in several formats."""
