"""From what was typed to objects: composing, checking, building, and what a run is."""
