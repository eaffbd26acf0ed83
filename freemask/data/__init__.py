"""Clips and task lists: videos, folders of frames, DAVIS, manifests, benchmarks, and the embedded world."""

from importlib import import_module
from typing import Any

_HOMES = {
    "open_clip": "open",
    "read_tasks": "tasks",
    "Geometry": "geometry",
    "FrameRange": "frames",
    "OneClip": "one",
    "Files": "files",
    "Pexels": "pexels",
    "Davis": "davis",
    "Tgve": "tgve",
    "Five": "five",
}


def __getattr__(name: str) -> Any:
    """Names are fetched when asked for, so that importing the world does not load the video library."""
    if name not in _HOMES:
        raise AttributeError(f"module 'freemask.data' has no attribute '{name}'")
    return getattr(import_module(f"freemask.data.{_HOMES[name]}"), name)
