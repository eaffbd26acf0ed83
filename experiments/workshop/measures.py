"""What is measured of the embedded models, one held-out scene at a time; every function runs in a worker process."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from evaluation.backbones import clip as clips
from evaluation.ops import overlap, psnr
from experiments.workshop.flow import COLUMNS
from freemask.attention.record import Recording, heat_of_words, recorder
from freemask.backbones.i2vgen import I2VGen
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet import Loaded
from freemask.backbones.unet3d import UNet3D
from freemask.backbones.wan import Wan
from freemask.data.world.source import named_masks, truth
from freemask.data.world.spec import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    MOTIONS,
    SPLITS,
    STYLES,
    Change,
    Scene,
    Wishes,
    sample_scene,
)
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert, sample
from freemask.errors import UserError
from freemask.masks.clock import Clock
from freemask.types import Backbone, Taps

# Folders of weights, and what reads them.
NETWORKS = {
    "t2i": Inflated2D.load,
    "t2v": UNet3D.load,
    "i2v": partial(I2VGen.load, text_skip=0),
    "dit": partial(Wan.load, max_tokens=COLUMNS),
}


def even_scenes(count: int, first: int, split: str = "heldout") -> list[Scene]:
    """Scenes in which every class, colour, background, motion, style and number of things takes its turn.

    Each property is a list with equal shares, shuffled on its own, so that no two properties go together.
    """
    if count < 1 or first < 0:
        came = f"{count} of them, from seed {first} of the split"
        raise UserError(
            "Nothing can be measured on these scenes.", came=came, expected="1 or more, from 0 on"
        )
    rng = np.random.default_rng([first, 23])

    def turns(values: Sequence) -> list:
        listed = [values[i % len(values)] for i in range(count)]
        return [listed[i] for i in rng.permutation(count)]

    properties = {"cls": CLASSES, "color": list(COLORS), "background": list(BACKGROUNDS), "motion": MOTIONS}
    properties |= {"style": list(STYLES), "things": (1, 1, 2)}
    columns = zip(*map(turns, properties.values()), strict=True)
    room = SPLITS[split].start + first
    return [
        sample_scene(room + number, Wishes(**dict(zip(properties, values, strict=True))))
        for number, values in enumerate(columns)
    ]


@lru_cache
def network(weights: str, name: str) -> Backbone:
    torch.set_num_threads(1)
    return NETWORKS[name](Path(weights) / name)


@lru_cache
def judge(weights: str) -> clips.Clip:
    torch.set_num_threads(1)
    return clips.load(clips.find("embedded", str(Path(weights) / "clip")), "cpu")


def verdicts(critic: clips.Clip, frames: Tensor, scene: Scene) -> dict[str, list[bool]]:
    """Zero-shot: does the true caption beat every caption that differs in one word? One verdict a thing."""
    seen = critic.images(frames)
    found: dict[str, list[bool]] = {"class": [], "color": [], "background": []}

    def ask(what: str, choices: Sequence[str], own: str, thing: int = 0) -> bool:
        captions = [Change(what, choice, thing).apply(scene).caption for choice in choices]
        read = torch.cat([critic.text(caption) for caption in captions])
        return choices[int((seen @ read.T).mean(0).argmax())] == own

    for index, thing in enumerate(scene.things):
        found["class"].append(ask("class", CLASSES, thing.cls, index))
        found["color"].append(ask("color", list(COLORS), thing.color, index))
    found["background"].append(ask("background", list(BACKGROUNDS), scene.background))
    return found


def labels(scene: Scene) -> dict[str, str]:
    first = scene.things[0]
    looks = {"class": first.cls, "color": first.color, "background": scene.background}
    return looks | {"motion": first.motion, "style": scene.style, "things": str(len(scene.things))}


def real(weights: str, scene: Scene) -> dict:
    """The judge on a true clip, and what the autoencoder loses on it."""
    backbone, frames = network(weights, "t2v"), truth(scene).frames
    again = backbone.decode(backbone.encode(frames))
    loss = float(psnr(frames, again).mean())
    return {"labels": labels(scene), "verdicts": verdicts(judge(weights), frames, scene), "vae_psnr": loss}


def generated(weights: str, name: str, scene: Scene, *, steps: int, guidance: float) -> dict:
    """A clip from the caption alone, judged; of the image network, which was taught single frames, one picture."""
    backbone, frames = network(weights, name), 1 if name == "t2i" else scene.frames
    shape = backbone.encode(torch.zeros(frames, 3, scene.height, scene.width)).shape
    noise = torch.randn(shape, generator=Generator().manual_seed(scene.seed))
    predict = guided(backbone, backbone.embed(scene.caption), guidance)
    made = backbone.decode(sample(backbone, noise, predict, steps))
    return {
        "labels": labels(scene),
        "caption": scene.caption,
        "verdicts": verdicts(judge(weights), made, scene),
        "frames": as_bytes(made),
    }


def as_bytes(frames: Tensor) -> np.ndarray:
    return (frames * 255).round().to(torch.uint8).numpy()


def cell_iou(heat: Tensor, mask: Tensor, threshold: float) -> float:
    """Foreground IoU of one map (`f h w`, frames as the mask's) against a pixel mask, min-max normalised per frame."""
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    even = (heat - low) / (high - low).clamp_min(1e-12)
    large = interpolate(even[:, None], mask.shape[1:], mode="bilinear", align_corners=False)
    return overlap(large[:, 0] > threshold, mask) or 0.0


def inverted(weights: str, name: str, scene: Scene, *, steps: int, threshold: float) -> dict:
    """Invert, record the first thing's word, sample back. `ious` is layers x times; an `untrained` network is like t2v,
    and does not go the way back."""
    untrained = name == "untrained"
    backbone = _untrained(weights) if untrained else network(weights, name)
    frames = truth(scene).frames
    latents, text = backbone.encode(frames), backbone.embed(scene.caption)
    columns = text.columns[scene.name_of(0).split()[-1]]
    kept = Recording()
    tap = recorder([heat_of_words("word", columns)], kept)
    path = invert(backbone, latents, guided(backbone, text, taps=Taps(attention=tap), stream="source"), steps)
    mask = named_masks(scene)[scene.things[0].cls]
    sites = [site for site, where in backbone.sites.items() if where.role == "cross"]
    times = list(backbone.noise_path.times(steps))
    clock = Clock(len(frames), backbone.compression)
    maps = {key: clock.lift(heat.float(), len(frames)) for key, heat in kept.all("word").items()}
    ious = np.array([[cell_iou(maps[site, t], mask, threshold) for t in times] for site in sites])
    result = {"labels": labels(scene), "caption": scene.caption, "ious": ious, "sites": sites, "times": times}
    if untrained:
        return result
    back = backbone.decode(sample(backbone, path[-1], guided(backbone, text), steps))
    best = np.unravel_index(ious.argmax(), ious.shape)
    shown = maps[sites[int(best[0])], times[int(best[1])]]
    return {
        **result,
        "psnr": float(psnr(backbone.decode(latents), back).mean()),
        "source": as_bytes(frames)[0],
        "back": as_bytes(back)[0],
        "map": shown[0].numpy(),
    }


@lru_cache(maxsize=1)
def _untrained(weights: str) -> UNet3D:
    """The same network with fresh weights: what an untaught map scores."""
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

    made: Any = network(weights, "t2v")
    torch.manual_seed(0)
    fresh = UNet3DConditionModel.from_config(made.unet.config)
    return UNet3D(Loaded(fresh, made.codec, made.reader, made.noise_path), name="untrained")
