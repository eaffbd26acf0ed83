"""One metric, one file: a constructor with plain arguments, `columns`, and a call on one case."""
