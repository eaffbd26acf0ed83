"""Mirrors of a run. Rows are the truth; a logger is fed from them and can never stop a run."""
