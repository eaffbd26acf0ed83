"""Editing methods: one file each, each a callable of (backbone, clip, task, rng)."""
