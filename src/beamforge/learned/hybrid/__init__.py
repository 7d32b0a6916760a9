"""Hybrid beams under imperfect channel knowledge, by learned virtual channels."""
