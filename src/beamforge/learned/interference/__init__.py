"""Beams for interference channels by learned interference temperatures and dual variables."""
