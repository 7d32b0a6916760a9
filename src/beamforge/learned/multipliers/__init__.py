"""This library's own learned method: predict the multipliers, let algebra make the beams."""
