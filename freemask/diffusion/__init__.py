"""Noise paths, and the two loops over them: invert and sample."""
