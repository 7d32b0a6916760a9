"""This library's own learned method: a network predicts the multipliers, and a formula turns them into beams."""
