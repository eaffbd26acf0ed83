"""Frames between two others, for methods that smooth what they make."""
