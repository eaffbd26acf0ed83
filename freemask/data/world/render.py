"""From a scene to frames, exact masks of things and parts, depth order and exact optical flow."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw
from torch import Tensor

from freemask.data.world.backgrounds import paint_background
from freemask.data.world.shapes import FIXED, SHAPES, part_color
from freemask.data.world.spec import COLORS, Scene, Thing
from freemask.data.world.styles import apply_style, outline_width

SUPER = 4  # samples per pixel and axis
MAX_PARTS = 16  # ids of one thing: 1 + parts; the last is the outline


@dataclass(frozen=True)
class Truth:
    """All that the world knows about a clip. Masks show what is visible; `order` lists things back to front."""

    frames: Float[Tensor, "f 3 h w"]
    things: tuple[Bool[Tensor, "f h w"], ...]
    parts: tuple[Mapping[str, Bool[Tensor, "f h w"]], ...]
    order: tuple[int, ...]
    depth: Float[Tensor, "f h w"]
    flow: Float[Tensor, "g 2 h w"]
    visible_next: Bool[Tensor, "g h w"]


def pose(scene: Scene, thing: Thing, frame: int) -> np.ndarray:
    """The 2x3 matrix from a thing's own box to pixels in one frame."""
    tau = frame / (scene.frames - 1) if scene.frames > 1 else 0.5
    unit = min(scene.height, scene.width)
    (x0, y0), (x1, y1) = thing.start, thing.end
    x, y, half = x0 + (x1 - x0) * tau, y0 + (y1 - y0) * tau, thing.half
    if thing.motion == "bouncing":
        x, y = x0 + (x1 - x0) * tau, max(y0, y1) - abs(y1 - y0) * 1.3 * abs(np.sin(2 * np.pi * tau + 0.4))
    if thing.motion == "coming closer":
        half = thing.half * (0.68 + 0.44 * tau)
    flip = -1.0 if thing.motion == "moving left" else 1.0
    return np.array([[half * flip * unit, 0, x * unit], [0, half * unit, y * unit]])


def _draw(scene: Scene, thing: Thing, matrix: np.ndarray) -> np.ndarray:
    """Part ids (0 = nothing) of one thing on the fine grid."""
    image = Image.new("L", (scene.width * SUPER, scene.height * SUPER), 0)
    pen = ImageDraw.Draw(image)
    for number, part in enumerate(SHAPES[thing.cls]):
        points = (part.polygon @ matrix[:, :2].T + matrix[:, 2]) * SUPER - 0.5
        pen.polygon([(float(x), float(y)) for x, y in points], fill=number + 1)
    ids = np.array(image)
    inside = ids > 0
    grown = inside.copy()
    reach = round(outline_width(scene.style) * SUPER * min(scene.height, scene.width) / 64)
    for axis in (0, 1):
        step = grown.copy()
        for shift in range(1, reach + 1):
            low, high = slice(shift, None), slice(None, -shift)
            near, far = (low, high) if axis == 0 else ((slice(None), low), (slice(None), high))
            step[near] |= grown[far]
            step[far] |= grown[near]
        grown = step
    ids[grown & ~inside] = MAX_PARTS - 1
    return ids


def _palette(thing: Thing) -> np.ndarray:
    colors = np.zeros((MAX_PARTS, 3))
    accent = COLORS[thing.part_color] if thing.part_color else None
    for number, part in enumerate(SHAPES[thing.cls]):
        colors[number + 1] = part_color(part, thing.cls, COLORS[thing.color], accent)
    colors[MAX_PARTS - 1] = 0.35 * np.array(COLORS[thing.color]) * 0.6 + 0.65 * np.array(FIXED["outline"])
    return colors


def _shrink(fine: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mean of each pixel's samples."""
    blocks = fine.reshape(height, SUPER, width, SUPER, *fine.shape[2:])
    return np.sum([blocks[:, i, :, j] for i in range(SUPER) for j in range(SUPER)], axis=0) / SUPER**2


def _stack(scene: Scene, frame: int) -> np.ndarray:
    """Ids on the fine grid with all things drawn back to front: thing * MAX_PARTS + part."""
    canvas = np.zeros((scene.height * SUPER, scene.width * SUPER), dtype=np.uint8)
    for index in depth_order(scene):
        thing = scene.things[index]
        ids = _draw(scene, thing, pose(scene, thing, frame))
        canvas = np.where(ids > 0, ids + np.uint8(MAX_PARTS * index), canvas)
    return canvas


def depth_order(scene: Scene) -> tuple[int, ...]:
    back = [i for i in range(len(scene.things)) if i != scene.front]
    return (*back, scene.front)


def _frame(scene: Scene, canvas: np.ndarray, ground: np.ndarray) -> np.ndarray:
    palette = np.concatenate([_palette(thing) for thing in scene.things]).astype(np.float32)
    palette = np.concatenate([palette, np.ones((len(palette), 1), dtype=np.float32)], axis=1)
    palette[0] = 0
    both = _shrink(palette[canvas], scene.height, scene.width).astype(np.float64)
    paint, cover = both[..., :3], both[..., 3:]
    light = np.linspace(1.06, 0.92, scene.height)[:, None, None]
    return apply_style(scene.style, paint * light, cover, ground, scene.seed)


def render_frames(scene: Scene, only: tuple[int, ...] | None = None) -> Float[Tensor, "f 3 h w"]:
    """Frames alone, the fast path of training; `only` picks some."""
    ground = paint_background(scene.background, scene.seed, scene.height, scene.width)
    chosen = range(scene.frames) if only is None else only
    frames = np.stack([_frame(scene, _stack(scene, i), ground) for i in chosen])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().clamp(0, 1).contiguous()


def _owner(canvas: np.ndarray, scene: Scene) -> np.ndarray:
    """Which thing (0 = none) owns each pixel: the majority of its samples."""
    blocks = canvas.reshape(scene.height, SUPER, scene.width, SUPER)
    owner = np.where(blocks > 0, blocks // MAX_PARTS + 1, 0)
    shares = np.stack([(owner == i).mean(axis=(1, 3)) for i in range(len(scene.things) + 1)])
    return shares.argmax(axis=0)


def moved(scene: Scene, thing: Thing, now: int, then: int) -> np.ndarray:
    """Offsets (x, y) of all pixels from frame `now` to frame `then`, were they points of this thing: `2 h w`."""
    y, x = np.mgrid[0 : scene.height, 0 : scene.width].astype(np.float64)
    a, b = pose(scene, thing, now), pose(scene, thing, then)
    own = np.stack([(x + 0.5 - a[0, 2]) / a[0, 0], (y + 0.5 - a[1, 2]) / a[1, 1]])
    to = np.stack([own[0] * b[0, 0] + b[0, 2], own[1] * b[1, 1] + b[1, 2]]) - 0.5
    return to - np.stack([x, y])


def _flow(scene: Scene, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact forward flow in pixels (x, y) and whether the point is still seen in the next frame."""
    steps = max(len(owners) - 1, 0)
    y, x = np.mgrid[0 : scene.height, 0 : scene.width].astype(np.float64)
    flow = np.zeros((steps, 2, scene.height, scene.width))
    for f in range(steps):
        for index, thing in enumerate(scene.things):
            flow[f] = np.where(owners[f] == index + 1, moved(scene, thing, f, f + 1), flow[f])
    to_x, to_y = np.rint(x + flow[:, 0]).astype(int), np.rint(y + flow[:, 1]).astype(int)
    inside = (to_x >= 0) & (to_x < scene.width) & (to_y >= 0) & (to_y < scene.height)
    frame = np.arange(steps)[:, None, None]
    landed = (
        owners[frame + 1, to_y.clip(0, scene.height - 1), to_x.clip(0, scene.width - 1)]
        if steps
        else owners[:0]
    )
    return flow, inside & (landed == owners[:steps])


def render(scene: Scene) -> Truth:
    """Frames and everything that is known about them."""
    ground = paint_background(scene.background, scene.seed, scene.height, scene.width)
    canvases = np.stack([_stack(scene, f) for f in range(scene.frames)])
    frames = np.stack([_frame(scene, canvas, ground) for canvas in canvases])
    owners = np.stack([_owner(canvas, scene) for canvas in canvases])
    parts = []
    for index, thing in enumerate(scene.things):
        names = dict.fromkeys(part.name for part in SHAPES[thing.cls])
        parts.append({name: _part(canvases, scene, index, name) for name in names})
    flow, visible = _flow(scene, owners)
    return Truth(
        frames=torch.from_numpy(frames).permute(0, 3, 1, 2).float().clamp(0, 1).contiguous(),
        things=tuple(torch.from_numpy(owners == i + 1) for i in range(len(scene.things))),
        parts=tuple(parts),
        order=depth_order(scene),
        depth=nearness(scene, torch.from_numpy(owners)),
        flow=torch.from_numpy(flow).float(),
        visible_next=torch.from_numpy(visible),
    )


def _part(canvases: np.ndarray, scene: Scene, index: int, name: str) -> Bool[Tensor, "f h w"]:
    shapes = SHAPES[scene.things[index].cls]
    ids = [place + 1 + MAX_PARTS * index for place, part in enumerate(shapes) if part.name == name]
    cover = [_shrink(np.isin(each, ids).astype(float), scene.height, scene.width) for each in canvases]
    return torch.from_numpy(np.stack(cover) >= 0.5)


def part_map(
    scene: Scene, index: int, name: str, only: tuple[int, ...] | None = None
) -> Bool[Tensor, "f h w"]:
    """Where that part of thing `index` is seen, for every frame; `only` picks some."""
    chosen = range(scene.frames) if only is None else only
    return _part(np.stack([_stack(scene, f) for f in chosen]), scene, index, name)


def owner_map(scene: Scene, only: tuple[int, ...] | None = None) -> Int[Tensor, "f h w"]:
    """0 = background, i + 1 = thing i, for every frame; `only` picks some."""
    chosen = range(scene.frames) if only is None else only
    return torch.from_numpy(np.stack([_owner(_stack(scene, f), scene) for f in chosen]))


def nearness(scene: Scene, owners: Int[Tensor, "f h w"]) -> Float[Tensor, "f h w"]:
    """Depth as images of it have it, where near is bright. The world is flat, so the order of its things is all that
    can be known: the ground is 0, things follow in equal steps, and the foremost is 1. A thing that comes closer grows,
    and passes no other."""
    ranks = torch.zeros(len(scene.things) + 1)
    for place, index in enumerate(depth_order(scene)):
        ranks[index + 1] = (place + 1) / len(scene.things)
    return ranks[owners]
