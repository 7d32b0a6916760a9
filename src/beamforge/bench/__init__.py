"""Comparison of methods: suites, statistics, timing, figures and reports."""
