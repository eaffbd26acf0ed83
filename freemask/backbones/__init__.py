"""Networks behind one door: each file wraps one family of checkpoints."""
