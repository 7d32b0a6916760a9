"""Joint sensing and communication by learned layers: sum rate under sensing SNR targets."""
