"""Learned methods for joint sensing and communication: sum rate under sensing SNR targets."""
