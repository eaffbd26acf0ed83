"""The kinds of work, one item at a time."""
