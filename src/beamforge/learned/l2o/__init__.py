"""Transformers that learn to optimise: layers that each better the beams, with ascent steps between them."""
