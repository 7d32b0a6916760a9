"""Joint communication and sensing: sum rate with sensing SNRs to keep."""
