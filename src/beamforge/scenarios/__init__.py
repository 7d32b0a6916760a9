"""Scenarios: who the users are and what their channels look like."""
