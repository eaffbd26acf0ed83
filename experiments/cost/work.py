"""What `freemask bench` measures: one edit in several modes, what it keeps, and how long it takes."""

import gc
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.cost.machine import MB, wait
from experiments.jobs import seeds
from freemask.attention.math import attend
from freemask.attention.rewire import references
from freemask.diffusion.inversions import Inversion
from freemask.diffusion.loops import Callbacks, sample
from freemask.masks.words import located
from freemask.methods.ddim import Ddim
from freemask.methods.flow_edit import FlowEdit
from freemask.methods.invert_fuse import OFF, InvertFuse
from freemask.types import QKV, Backbone, Clip, EditTask, Method, OpticalFlow, Taps, Where

# `plain` is the same inversion and edit without fusion. `recompute` runs the source beside the edit; the others keep
# its queries and keys, `cache_int8` on the device as whole numbers. `free` is FlowEdit with the same masks: no
# inversion, models of flow matching alone. `edit` is a method that fuses nothing, as it is, and `bare` the same without
# what it is about, where it says what that is.
FREE, EDIT, BARE = "free", "edit", "bare"
Mode = Literal[
    "plain", "recompute", "cache_device", "cache_int8", "cache_host", "cache_disk", "free", "edit", "bare"
]
MODES: tuple[Mode, ...] = get_args(Mode)
FUSING: tuple[Mode, ...] = ("plain", "recompute", "cache_device", "cache_int8", "cache_host", "cache_disk")
OF_WHOLE_CLIPS = ("space_time", "joint")  # the roles of layers that look at all frames at once
OFFICIAL = 32 * 32  # the official code keeps the maps of layers with at most so many queries


def modes_of(method: Method) -> tuple[Mode, ...]:
    """Those that are measured where none is asked for; the second is what the others are held against."""
    if isinstance(method, InvertFuse):
        return FUSING
    return ("plain", "edit", "bare") if hasattr(method, BARE) else ("plain", "edit")


def in_mode(method: Method, mode: str, steps: int) -> Method:
    """The same edit in another mode. Its inversion is always made anew."""
    if not isinstance(method, InvertFuse):
        made: Any = method
        whole = {EDIT: lambda: made, BARE: lambda: made.bare()}
        return (
            _whole(whole[mode](), steps) if mode in whole else Ddim(steps, getattr(method, "guidance", None))
        )
    if mode == FREE:
        masked_for, heat_gb = method.fusion.masked_for, method.heat_gb
        return FlowEdit(steps, method.guidance, mask=method.mask, masked_for=masked_for, heat_gb=heat_gb)
    return fused_in_mode(method, mode, steps)


def fused_in_mode(method: InvertFuse, mode: str, steps: int) -> InvertFuse:
    one = replace(method, steps=steps, inversions=None)
    if mode == "plain":
        return replace(one, fusion=OFF)
    features, _, place = mode.partition("_")
    if place == "int8":  # on the device, where room is dear
        return replace(one, features=features, cache_on="device", cache_as=place)
    return replace(one, features=features, cache_on=place or one.cache_on)


def _whole(method: Any, steps: int) -> Method:
    known = {each.name for each in fields(method)}
    return replace(
        method, **{name: value for name, value in (("steps", steps), ("inversions", None)) if name in known}
    )


def clip_of(*size: int) -> Clip:
    """The moving pattern: so many frames, high and wide."""
    return Clip("pattern", pattern(*size), flow=drift(*size))


def annotated(clip: Clip, task: EditTask) -> Clip:
    """The pattern shows nothing: what the words of an edit stand for is a part of its width each."""
    words = [phrase for each in task.each for phrase in located(each)]
    masks, step = {}, clip.frames.shape[-1] // len(words)
    for place, phrase in enumerate(words):
        masks[phrase] = torch.zeros(len(clip.frames), *clip.frames.shape[-2:], dtype=torch.bool)
        masks[phrase][..., place * step : (place + 1) * step] = True
    return replace(clip, masks=masks)


@dataclass(frozen=True)
class Edits:
    """One edit of a moving pattern, in any mode, with any number of frames and steps."""

    backbone: Backbone
    method: Method
    task: EditTask
    height: int
    width: int

    def clip(self, frames: int) -> Clip:
        return annotated(clip_of(frames, self.height, self.width), self.task)

    def work(self, mode: str, frames: int, steps: int) -> Callable[[], Tensor]:
        """The edit as users run it, ready to be called; it answers with the edited frames."""
        method, clip = in_mode(self.method, mode, steps), self.clip(frames)
        rng = seeds.generator(0, self.task.id)
        return lambda: method(self.backbone, clip, self.task, rng).frames

    def kept(self, mode: str, frames: int, steps: int) -> tuple[Tensor, dict[str, float]]:
        """The same edit step by step: its frames, and the MB of what it keeps until its end."""
        assert isinstance(self.method, InvertFuse)
        method, clip = fused_in_mode(self.method, mode, steps), self.clip(frames)
        clean = Inversion([self.backbone.encode(clip.frames)], ())
        with method.begin(self.backbone, clip, self.task, known=clean) as editing:
            inversion, lender, times = editing.inversion, editing.lender, editing.subject.times
            on = Callbacks(after=editing.after)
            edited = sample(self.backbone, inversion.latents[-1], editing.predict, times, on=on)
            sizes = {
                "features": 0 if editing.cache is None else editing.cache.bytes,
                "word heat": sum(lender.kept.bytes.values()) + sum(editing.target.bytes.values()),
                "latents": _size([*inversion.latents, *lender.latents]),
            }
        return self.backbone.decode(edited).float().cpu(), {name: size / MB for name, size in sizes.items()}


def pattern(frames: int, height: int, width: int) -> Float[Tensor, "f 3 h w"]:
    """Waves that move, in 0..1, another in each colour."""
    y = torch.linspace(0, 2 * math.pi, height)[None, None, :, None]
    x = torch.linspace(0, 2 * math.pi, width)[None, None, None, :]
    moved = 0.4 * torch.arange(frames)[:, None, None, None] + torch.arange(3)[None, :, None, None]
    return 0.5 + 0.25 * torch.sin(2 * x + moved) + 0.25 * torch.sin(3 * y - moved)


def drift(frames: int, height: int, width: int) -> OpticalFlow:
    """How they move: one wave sideways and one down, so that all of it goes to the lower left."""
    x, y = (0.4 / waves * (side - 1) / (2 * math.pi) for waves, side in ((-2, width), (3, height)))
    forth = torch.tensor([x, y])[None, :, None, None].expand(frames - 1, 2, height, width)
    return OpticalFlow(forth, torch.ones(frames - 1, height, width, dtype=torch.bool))


def timed(work: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds on the clock and of the processor, which other programs hardly change."""
    gc.collect()
    wait(device)
    clock, processor = time.perf_counter(), time.process_time()
    work()
    wait(device)
    return {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - processor}


@dataclass(frozen=True)
class Layer:
    """A spatial attention: its map for one frame has heads x queries x (reach x queries, or the text's tokens)."""

    name: str
    role: str
    heads: int
    queries: int
    tokens: int


def layers(edits: Edits) -> list[Layer]:
    """Seen in one call of the network on a single frame."""
    found: list[Layer] = []

    def tap(where: Where, qkv: QKV) -> Tensor:
        if where.site.role in ("self", "cross"):
            heads, queries = qkv.q.shape[2:4]
            found.append(Layer(where.site.name, where.site.role, heads, queries, qkv.k.shape[3]))
        return attend(qkv)

    backbone, taps = edits.backbone, Taps(attention=tap)
    latents, text = backbone.encode(edits.clip(1).frames), backbone.embed(edits.task.source)
    noisiest = backbone.noise_path.times(1)[0]
    backbone.predict(latents[None], noisiest, {"source": text.given}, taps=taps)
    return found


def official_maps(
    found: Sequence[Layer], reach: Mapping[str, int], *, frames: int, steps: int, bytes_each: int
) -> dict[str, float]:
    """Computed: the MB of every map that the official code keeps, all steps together.

    `reach` tells of how many frames a self-attention reads the keys; it is 1 where nothing is said.
    """
    sizes = {"self": 0, "cross": 0}
    for layer in found:
        if layer.queries <= OFFICIAL:
            keys = layer.tokens if layer.role == "cross" else layer.queries * reach.get(layer.name, 1)
            sizes[layer.role] += frames * layer.heads * layer.queries * keys * bytes_each * steps
    return {role: size / MB for role, size in sizes.items()}


def reach_of(backbone: Backbone, frames: int) -> dict[str, int]:
    """Of how many frames each self-attention that looks beyond its own frame reads the keys."""
    sites = backbone.sites.values()
    return {site.name: len(references(site.look, frames)[0]) for site in sites if site.look}


def _size(tensors: Iterable[Tensor]) -> int:
    """Bytes in memory, those that several tensors share counted once."""
    blocks = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(blocks.values())
