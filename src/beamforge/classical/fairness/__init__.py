"""Sum rate under a prescribed fairness."""
