"""Trained weights of beamforge that are too large to travel with the library; `beamforge.io.weights` reads them."""
