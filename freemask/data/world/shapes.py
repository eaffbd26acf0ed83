"""The eight kinds of objects, as named parts made of polygons in a box from -1 to 1 (y down, facing right)."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

Polygon = np.ndarray
Number = float | int

# Colours of a part: 'body' takes the object's colour, 'accent' the part colour, the others are fixed.
FIXED = MappingProxyType(
    {
        "tyre": (0.12, 0.12, 0.14),
        "glass": (0.72, 0.88, 0.96),
        "eye": (0.05, 0.05, 0.08),
        "shine": (1.0, 1.0, 1.0),
        "wood": (0.45, 0.28, 0.14),
        "beak": (0.97, 0.65, 0.10),
        "outline": (0.10, 0.09, 0.13),
    }
)


@dataclass(frozen=True)
class Part:
    name: str
    role: str
    shade: float
    polygon: Polygon


def _poly(*points: tuple[Number, Number]) -> Polygon:
    return np.array(points, dtype=np.float64)


def _oval(x: Number, y: Number, rx: Number, ry: Number | None = None, count: int = 24) -> Polygon:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + (ry or rx) * np.sin(angle)], axis=1)


def _star(points: int, outer: Number, inner: Number, y: Number = 0.0) -> Polygon:
    angle = np.arange(2 * points) * np.pi / points - np.pi / 2
    radius = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return np.stack([radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def _car() -> list[Part]:
    return [
        Part("cabin", "body", 0.92, _poly((-0.5, -0.05), (-0.3, -0.52), (0.28, -0.52), (0.56, -0.05))),
        Part("window", "glass", 1.0, _poly((-0.36, -0.1), (-0.22, -0.4), (-0.04, -0.4), (-0.04, -0.1))),
        Part("window", "glass", 1.0, _poly((0.06, -0.1), (0.06, -0.4), (0.22, -0.4), (0.4, -0.1))),
        Part("body", "body", 1.0, _poly((-1, -0.08), (0.7, -0.08), (1, 0.1), (1, 0.36), (-1, 0.36))),
        Part("body", "body", 0.72, _poly((-1, 0.22), (1, 0.22), (1, 0.36), (-1, 0.36))),
        Part("light", "shine", 1.0, _oval(0.88, 0.1, 0.1)),
        Part("wheels", "accent", 1.0, _oval(-0.54, 0.4, 0.27)),
        Part("wheels", "accent", 1.0, _oval(0.54, 0.4, 0.27)),
        Part("hub", "shine", 0.8, _oval(-0.54, 0.4, 0.1)),
        Part("hub", "shine", 0.8, _oval(0.54, 0.4, 0.1)),
    ]


def _truck() -> list[Part]:
    return [
        Part("cargo", "body", 1.0, _poly((-1, -0.85), (0.32, -0.85), (0.32, 0.5), (-1, 0.5))),
        Part("cargo", "body", 0.75, _poly((-0.84, -0.62), (0.16, -0.62), (0.16, -0.48), (-0.84, -0.48))),
        Part("cargo", "body", 0.75, _poly((-0.84, -0.2), (0.16, -0.2), (0.16, -0.06), (-0.84, -0.06))),
        Part("cab", "body", 0.85, _poly((0.38, -0.4), (0.78, -0.4), (1, 0.02), (1, 0.5), (0.38, 0.5))),
        Part("window", "glass", 1.0, _poly((0.5, -0.26), (0.72, -0.26), (0.88, 0.05), (0.5, 0.05))),
        Part("base", "tyre", 2.0, _poly((-1, 0.42), (1, 0.42), (1, 0.56), (-1, 0.56))),
        Part("wheels", "accent", 1.0, _oval(-0.66, 0.6, 0.25)),
        Part("wheels", "accent", 1.0, _oval(-0.06, 0.6, 0.25)),
        Part("wheels", "accent", 1.0, _oval(0.66, 0.6, 0.25)),
    ]


def _boat() -> list[Part]:
    return [
        Part("mast", "wood", 1.0, _poly((-0.08, -0.98), (0.04, -0.98), (0.04, 0.35), (-0.08, 0.35))),
        Part("sail", "accent", 1.0, _poly((0.1, -0.92), (0.86, 0.22), (0.1, 0.22))),
        Part("sail", "accent", 0.82, _poly((-0.14, -0.7), (-0.14, 0.22), (-0.72, 0.22))),
        Part("hull", "body", 1.0, _poly((-1, 0.32), (1, 0.32), (0.64, 0.88), (-0.66, 0.88))),
        Part("hull", "body", 0.72, _poly((-0.84, 0.6), (0.84, 0.6), (0.64, 0.88), (-0.66, 0.88))),
    ]


def _fish() -> list[Part]:
    return [
        Part("fins", "accent", 1.0, _poly((-0.45, 0.0), (-1, -0.55), (-0.86, 0.0), (-1, 0.55))),
        Part("fins", "accent", 0.9, _poly((-0.3, -0.4), (0.0, -0.82), (0.32, -0.38))),
        Part("body", "body", 1.0, _oval(0.16, 0.02, 0.82, 0.52)),
        Part("belly", "body", 1.25, _oval(0.2, 0.24, 0.56, 0.24)),
        Part("fins", "accent", 0.8, _poly((0.1, 0.05), (-0.3, 0.42), (0.18, 0.36))),
        Part("eye", "shine", 1.0, _oval(0.6, -0.12, 0.17)),
        Part("eye", "eye", 1.0, _oval(0.64, -0.12, 0.09)),
    ]


def _bird() -> list[Part]:
    return [
        Part("legs", "beak", 0.8, _poly((-0.02, 0.6), (0.06, 0.6), (0.06, 1.0), (-0.02, 1.0))),
        Part("legs", "beak", 0.8, _poly((0.22, 0.6), (0.3, 0.6), (0.3, 1.0), (0.22, 1.0))),
        Part("tailfeather", "body", 0.75, _poly((-0.4, 0.1), (-1, -0.12), (-0.98, 0.4), (-0.4, 0.45))),
        Part("body", "body", 1.0, _oval(0.02, 0.26, 0.58, 0.44)),
        Part("head", "body", 1.0, _oval(0.5, -0.34, 0.35)),
        Part("beak", "beak", 1.0, _poly((0.76, -0.5), (1.06, -0.3), (0.76, -0.14))),
        Part("eye", "eye", 1.0, _oval(0.58, -0.42, 0.08)),
        Part(
            "wing",
            "accent",
            0.85,
            _poly((-0.62, -0.72), (0.06, -0.22), (0.26, 0.2), (-0.2, 0.4), (-0.5, 0.06)),
        ),
    ]


def _cat() -> list[Part]:
    return [
        Part(
            "tail",
            "accent",
            0.85,
            _poly((-0.66, 0.3), (-1, -0.3), (-0.94, -0.92), (-0.68, -0.92), (-0.74, -0.3), (-0.44, 0.2)),
        ),
        Part("body", "body", 1.0, _poly((-0.7, 0.02), (0.4, 0.02), (0.44, 0.6), (-0.7, 0.6))),
        Part("legs", "body", 0.82, _poly((-0.7, 0.5), (-0.44, 0.5), (-0.44, 1.0), (-0.7, 1.0))),
        Part("legs", "body", 0.82, _poly((-0.3, 0.5), (-0.06, 0.5), (-0.06, 1.0), (-0.3, 1.0))),
        Part("legs", "body", 0.82, _poly((0.14, 0.5), (0.4, 0.5), (0.4, 1.0), (0.14, 1.0))),
        Part("ears", "body", 0.8, _poly((0.06, -0.36), (0.1, -0.98), (0.44, -0.56))),
        Part("ears", "body", 0.8, _poly((0.5, -0.56), (0.86, -0.98), (0.92, -0.36))),
        Part("head", "body", 1.08, _oval(0.48, -0.22, 0.48, 0.42)),
        Part("eye", "eye", 1.0, _oval(0.32, -0.28, 0.085, 0.12)),
        Part("eye", "eye", 1.0, _oval(0.68, -0.28, 0.085, 0.12)),
        Part("nose", "beak", 0.8, _oval(0.5, -0.06, 0.09, 0.06)),
    ]


def _ball() -> list[Part]:
    return [
        Part("body", "body", 1.0, _oval(0, 0, 0.86)),
        Part("stripe", "accent", 1.0, _poly((-0.83, -0.2), (0.83, -0.2), (0.83, 0.2), (-0.83, 0.2))),
        Part("shine", "body", 1.5, _oval(-0.32, -0.5, 0.2, 0.13)),
    ]


def _star_shape() -> list[Part]:
    return [
        Part("body", "body", 1.0, _star(5, 1.0, 0.43, 0.06)),
        Part("core", "accent", 1.0, _star(5, 0.5, 0.22, 0.06)),
    ]


SHAPES = MappingProxyType(
    {
        "car": tuple(_car()),
        "truck": tuple(_truck()),
        "boat": tuple(_boat()),
        "fish": tuple(_fish()),
        "bird": tuple(_bird()),
        "cat": tuple(_cat()),
        "ball": tuple(_ball()),
        "star": tuple(_star_shape()),
    }
)
# What the accented part looks like when the caption names no colour for it: a fixed colour, or a shade of the body.
DEFAULT_ACCENT = MappingProxyType(
    {
        "car": ("tyre", 1.0),
        "truck": ("tyre", 1.0),
        "boat": ("shine", 0.93),
        "fish": ("body", 0.7),
        "bird": ("body", 0.7),
        "cat": ("body", 0.8),
        "ball": ("body", 0.62),
        "star": ("body", 1.35),
    }
)


def part_color(part: Part, cls: str, body: tuple[float, ...], accent: tuple[float, ...] | None) -> np.ndarray:
    """RGB of one part. Shades above 1 mix towards white."""
    role, shade = part.role, part.shade
    if role == "accent" and accent is None:
        role, factor = DEFAULT_ACCENT[cls]
        shade = shade * factor
    base = np.array(accent if role == "accent" else body if role == "body" else FIXED[role])
    if shade > 1:
        return np.clip(base + (1 - base) * min(shade - 1, 1.0), 0, 1)
    return base * shade
