"""Tuning a network on one clip, before a method edits it: recipes, steps, and the weights that are kept."""
