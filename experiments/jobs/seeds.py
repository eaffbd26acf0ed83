"""Randomness of a task: from the run's seed and the task's id alone, whatever the order."""

import hashlib

import torch


def seed_of(seed: int, task: str) -> int:
    digest = hashlib.sha256(f"{seed}/{task}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, task: str) -> torch.Generator:
    """On the CPU: the same numbers for every device."""
    return torch.Generator("cpu").manual_seed(seed_of(seed, task))
