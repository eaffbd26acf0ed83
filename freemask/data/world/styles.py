"""The global styles. A style sees paint and coverage, not pixels alone, so it can treat edges and ground apart."""

import numpy as np

from freemask.data.world.backgrounds import _noise


def outline_width(style: str) -> float:
    """Width of the outline in pixels of a 64-pixel frame."""
    return {"plain": 0.75, "comic": 1.75, "watercolor": 0.5, "neon": 0.75}[style]


def _over(paint: np.ndarray, cover: np.ndarray, ground: np.ndarray) -> np.ndarray:
    return paint + (1 - cover) * ground


def _saturate(rgb: np.ndarray, amount: float) -> np.ndarray:
    grey = rgb.mean(axis=-1, keepdims=True)
    return grey + (rgb - grey) * amount


def _comic(paint: np.ndarray, cover: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Flat, loud ground in few tones; thick outlines come from the drawing."""
    tones = np.round(_saturate(ground, 1.35) * 5) / 5
    soft = 0.7 * tones + 0.3 * ground
    return np.clip(_over(_saturate(paint, 1.1), cover, soft), 0, 1)


def _watercolor(paint: np.ndarray, cover: np.ndarray, ground: np.ndarray, wash: np.ndarray) -> np.ndarray:
    """Pale washes on paper, with pigment gathering unevenly."""
    paper = np.array([0.98, 0.965, 0.93])
    strength = np.clip(0.72 + 0.09 * wash, 0.4, 0.95)[..., None]
    return np.clip(paper + strength * (_over(paint, cover, ground) - paper), 0, 1)


def _neon(paint: np.ndarray, cover: np.ndarray, ground: np.ndarray, glow: np.ndarray) -> np.ndarray:
    """Ground dimmed, objects glow into it."""
    bright = np.clip(_saturate(paint, 1.25) + 0.10 * cover, 0, 1)
    return np.clip(_over(bright, cover, 0.42 * ground + 0.55 * glow), 0, 1)


def _blur(image: np.ndarray, radius: int) -> np.ndarray:
    """A box blur, twice: cheap and smooth enough for a glow."""
    out = image
    for _ in range(2):
        for axis in (0, 1):
            pad = [(radius, radius) if a == axis else (0, 0) for a in range(out.ndim)]
            total = np.cumsum(np.pad(out, pad, mode="edge"), axis=axis)
            size = out.shape[axis]
            high = np.take(total, np.arange(2 * radius, 2 * radius + size), axis=axis)
            low = np.take(total, np.arange(size), axis=axis)
            out = (high - low) / (2 * radius)
    return out


def apply_style(
    style: str, paint: np.ndarray, cover: np.ndarray, ground: np.ndarray, seed: int
) -> np.ndarray:
    """`paint` is premultiplied by `cover`; all are `h w c`; the result is in 0..1."""
    height, width = cover.shape[:2]
    unit = min(height, width) / 64
    if style == "comic":
        return _comic(paint, cover, ground)
    if style == "watercolor":
        wash = _noise(np.random.default_rng([seed, 13]), height, width, 12 * unit)
        return _watercolor(paint, cover, ground, wash)
    if style == "neon":
        glow = _blur(paint, max(1, round(3 * unit)))
        return _neon(paint, cover, ground, glow)
    return np.clip(_over(paint, cover, ground), 0, 1)
