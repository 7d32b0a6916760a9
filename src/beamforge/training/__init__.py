"""The training loop of all learned methods, with recipes, streams of training data, checkpoints and logs."""
