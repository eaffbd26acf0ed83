"""Runs whose processes are killed from outside, compared with a run that nobody disturbed."""
