"""Measuring edits: one clip in, named numbers out; tables are made later, from rows."""
