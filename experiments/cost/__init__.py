"""What fusion costs in time and memory: the work of `freemask bench`."""
