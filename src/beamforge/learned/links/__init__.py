"""Learned power control of single-antenna links."""
