"""Files: named arrays in several formats, channels, solutions and trained weights."""
