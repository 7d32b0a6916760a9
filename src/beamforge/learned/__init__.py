"""Learned methods: this library's own, and one file for each published model."""
