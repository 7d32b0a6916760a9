"""Hybrid beams: an analog beamformer of codewords, and digital beams."""
