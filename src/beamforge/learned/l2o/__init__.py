"""Learning-to-optimise transformers: layers that improve the beams, with gradient ascent steps between them."""
