"""Learned methods: this library's own ones and published models, one file each."""
