"""Masks: from word heat to what an edit may change, and the choice of which heat to trust."""
