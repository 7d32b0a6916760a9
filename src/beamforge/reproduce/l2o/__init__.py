"""The transformer that learns to optimise."""
