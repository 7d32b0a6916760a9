"""Learned methods for interference channels whose base stations decide alone."""
