"""Fusion: how attention of the source clip enters the edit, where a mask allows it."""
