"""Attention as mathematics, as recordings, and as the processor that lets taps stand in for it."""
