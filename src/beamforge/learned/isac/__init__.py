"""Joint sensing and communication by learned multipliers, one for each user and one for each target."""
