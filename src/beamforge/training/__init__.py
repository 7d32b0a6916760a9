"""One training loop for every learned method, and what it needs: recipes, streams of channels, checkpoints, weights."""
