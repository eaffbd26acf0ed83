"""Mask strategies: one file and one YAML each."""
