"""Trained weights of beamforge that are too large to ship with the library; `beamforge.io.weights` reads them."""
