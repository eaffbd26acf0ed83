"""The six backgrounds: textures with structure, smooth enough for a small autoencoder."""

import numpy as np
from PIL import Image

RGB = np.ndarray


def _noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Smooth noise of about unit amplitude with features of `cell` pixels."""
    rows, columns = max(2, round(height / cell) + 1), max(2, round(width / cell) + 1)
    grid = rng.standard_normal((rows, columns)).astype(np.float32)
    return np.asarray(
        Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64
    )


def _paint(base: tuple[float, float, float], value: np.ndarray, tint: tuple[float, float, float]) -> RGB:
    return np.array(base)[None, None] + value[..., None] * np.array(tint)[None, None]


def _grass(rng: np.random.Generator, height: int, width: int, unit: float) -> RGB:
    coarse = _noise(rng, height, width, 14 * unit)
    blades = _noise(rng, height, width, 5 * unit)
    return _paint((0.32, 0.60, 0.22), coarse, (0.035, 0.045, 0.02)) + _paint(
        (0.0, 0.0, 0.0), blades, (0.02, 0.035, 0.015)
    )


def _sand(rng: np.random.Generator, height: int, width: int, unit: float) -> RGB:
    y, x = np.mgrid[0:height, 0:width] / unit
    phase = rng.uniform(0, 6.28)
    warp = _noise(rng, height, width, 18 * unit)
    ripple = np.sin((y + 0.45 * x) * 2 * np.pi / 11 + 1.6 * warp + phase)
    return _paint((0.88, 0.75, 0.50), ripple, (0.045, 0.045, 0.04))


def _snow(rng: np.random.Generator, height: int, width: int, unit: float) -> RGB:
    hills = _noise(rng, height, width, 20 * unit)
    fine = _noise(rng, height, width, 7 * unit)
    return _paint((0.86, 0.90, 0.95), hills, (0.05, 0.04, 0.025)) + _paint(
        (0.0, 0.0, 0.0), fine, (0.018, 0.016, 0.012)
    )


def _night(rng: np.random.Generator, height: int, width: int, unit: float) -> RGB:
    y, x = np.mgrid[0:height, 0:width] / unit
    clouds = _noise(rng, height, width, 16 * unit)
    sky = _paint((0.06, 0.07, 0.20), clouds, (0.018, 0.018, 0.04))
    for _ in range(round(12 * height * width / (64 * unit) ** 2)):
        cy, cx = rng.uniform(0, height / unit), rng.uniform(0, width / unit)
        spot = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * rng.uniform(0.9, 1.4) ** 2))
        sky = sky + spot[..., None] * np.array([0.6, 0.6, 0.5]) * rng.uniform(0.5, 1.0)
    return sky


def _water(rng: np.random.Generator, height: int, width: int, unit: float) -> RGB:
    y, x = np.mgrid[0:height, 0:width] / unit
    phase = rng.uniform(0, 6.28, size=2)
    warp = _noise(rng, height, width, 16 * unit)
    wave = np.sin(y * 2 * np.pi / 9 + 1.1 * np.sin(x * 2 * np.pi / 16 + phase[0]) + 0.6 * warp + phase[1])
    return _paint((0.14, 0.52, 0.70), wave, (0.035, 0.065, 0.06))


def _bricks(rng: np.random.Generator, height: int, width: int, unit: float) -> RGB:
    y, x = np.mgrid[0:height, 0:width] / unit
    dy, dx = rng.uniform(0, 12), rng.uniform(0, 20)
    row = np.floor((y + dy) / 12)
    inside_y, inside_x = (y + dy) % 12, (x + dx + 10 * (row % 2)) % 20
    edge = np.minimum(np.minimum(inside_y, 12 - inside_y), np.minimum(inside_x, 20 - inside_x))
    mortar = np.clip(1.6 - edge, 0, 1)
    stone = _paint((0.55, 0.33, 0.28), _noise(rng, height, width, 12 * unit), (0.03, 0.022, 0.02))
    return stone + mortar[..., None] * (np.array([0.70, 0.64, 0.58]) - stone) * 0.75


PAINTERS = {
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "night": _night,
    "water": _water,
    "bricks": _bricks,
}


def paint_background(name: str, seed: int, height: int, width: int) -> RGB:
    """`h w 3` in 0..1. `unit` scales features, so that a larger frame shows the same texture, larger."""
    rng = np.random.default_rng([seed, 11])
    return np.clip(PAINTERS[name](rng, height, width, min(height, width) / 64), 0, 1)
