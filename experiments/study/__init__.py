"""Asking people: a blind page of a run's edits, the answers, and what they say."""
