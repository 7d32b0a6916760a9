"""Joint communication and sensing: maximum sum rate subject to sensing SNR targets."""
