"""Where attention goes in an edit of regions, without drawing it to them and with it: of the words of each region, and
of a cell in each region over all frames. Rows of these words and cells alone are ever made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from experiments.figures.drawn import TINY, Drawn, heat, marked, shown
from experiments.figures.mmc import short
from experiments.figures.setting import Setting
from experiments.figures.strips import Strips
from freemask.attention import modulated
from freemask.attention.layout import on_grid
from freemask.attention.rewire import references
from freemask.errors import UserError
from freemask.masks.ops import resize
from freemask.masks.words import annotated
from freemask.methods.regional import Phrases, phrases_of
from freemask.methods.videograin import VideoGrain
from freemask.types import QKV, Edit, Time, Where

WINDOW = 0.3  # of the steps, from the noisy end: where the paper draws attention
SHARP = 0.5  # a cell looks most at itself: a root shows the rest


@dataclass
class Watching:
    """Keeps, of chosen layers and times, the mean weight of each phrase on the grid (text attention), and of a cell of
    each region on the cells of all frames (self-attention)."""

    layers: Sequence[str]
    times: Sequence[Time]
    phrases: Sequence[Phrases]
    cells: Sequence[tuple[int, int]]  # frame and cell
    streams: dict[str, str]  # by role
    words: list[Float[Tensor, "r f h w"]] = field(default_factory=list)
    looks: list[Float[Tensor, "r f h w"]] = field(default_factory=list)
    regions: Float[Tensor, "r f h w"] | None = None  # to which words were drawn

    def __call__(self, where: Where, stream: str, qkv: QKV, how: modulated.Drawn | None) -> None:
        role = where.site.role
        if where.site.name not in self.layers or where.t not in self.times or stream != self.streams[role]:
            return
        if role == "cross":
            if how is not None:
                self.regions = torch.stack([on_grid(each, where) for each in how.queries.cpu().unbind(-1)])
            self.words.append(self.of_words(where, qkv, how))
        else:
            self.looks.append(torch.stack([self.of_cell(where, qkv, how, *cell) for cell in self.cells]))

    def of_words(self, where: Where, qkv: QKV, how: modulated.Drawn | None) -> Float[Tensor, "r f h w"]:
        """On a phrase, the sum over its tokens; mean over heads."""
        every = range(qkv.q.shape[3])
        rows = [modulated.weights(qkv, frame, every, how)[0].mean(0) for frame in range(qkv.q.shape[1])]
        found = torch.stack(rows).float().cpu()  # f n tokens
        return torch.stack([on_grid(found[..., each.columns].sum(-1), where) for each in self.phrases])

    def of_cell(
        self, where: Where, qkv: QKV, how: modulated.Drawn | None, frame: int, cell: int
    ) -> Float[Tensor, "f h w"]:
        grid = where.grid
        row = modulated.weights(qkv, frame, [cell], how)[0, :, 0].mean(0).float().cpu()
        seen = references(where.site.look or (0,), grid.frames)[frame]
        maps = rearrange(row, "(g h w) -> g h w", h=grid.height, w=grid.width)
        found = torch.zeros(tuple(grid))
        for place, other in enumerate(seen):
            found[other] += maps[place]
        return found


def measured(setting: Setting, frames: int) -> Drawn:
    """The edit twice, without and with attention drawn to regions, and what was attended to in the first steps."""
    method, clip, task = setting.method, setting.clip, setting.task
    if not isinstance(method, VideoGrain):
        came = f"{type(method).__name__} in the experiment of this figure"
        raise UserError("only VideoGrain draws attention to regions", came=came, expected="method=videograin")
    layers = layers_of(setting)
    regions = regions_of(setting)
    target = setting.backbone.embed(task.target)
    phrases = phrases_of(task.each, target, described=method.phrase == "described", first=method.official)
    grid = setting.backbone.grid(
        setting.backbone.sites[layers[0]], *clip.frames.shape[:1], *clip.frames.shape[2:]
    )
    own = torch.stack([resize(each.float(), grid.height, grid.width) for each in regions])
    cells = [middle_of(each) for each in own]
    path = setting.backbone.noise_path.times(method.steps)
    steps = max(1, int(WINDOW * method.steps + 1e-9))
    streams = {"cross": "cond", "self": "uncond" if method.official else "cond"}
    edits: list[Edit] = []
    watched: list[Watching] = []
    for each in (method.bare(), method):
        watched.append(Watching(layers, path[-steps:], phrases, cells, streams))
        edits.append(each.watched(setting.backbone, clip, task, setting.rng(), watched[-1]))
    pictures = {"source": shown(marked(clip.frames, cells, grid), frames)}
    pictures["edit without"] = shown(edits[0].frames, frames)
    pictures["edit with"] = shown(edits[1].frames, frames)
    inside = own if watched[1].regions is None else watched[1].regions
    told = []
    for name, before, after, region in pairs(watched, phrases, inside):
        root = SHARP if name.startswith("cell") else 1
        most = float(torch.stack([before, after]).max())
        for when, each in (("without", before), ("with", after)):
            maps = (each / max(most, TINY)).pow(root)
            pictures[f"{name}\n{when}"] = heat(maps, clip.frames, frames)
        told.append(f"{name} {share_in(before, region):.0%} to {share_in(after, region):.0%}")
    about = (
        f"Mean of layers {', '.join(dict.fromkeys(map(short, layers)))} in steps 1-{steps} of"
        f" {method.steps}; without and with have one scale, of cells by square roots. The cells are marked in the"
        f" source. How much of it falls into the own region, without to with: {'; '.join(told)}. Modulated in"
        f" {method.drawn:.0%} of the steps, self-attention by {method.within}. {setting.about}."
    )
    rows = {label: [each] for label, each in pictures.items()}
    return Drawn({"": Strips(rows, [f"{task.source} → {task.target}"])}, about)


def pairs(
    watched: Sequence[Watching], phrases: Sequence[Phrases], regions: Float[Tensor, "r f h w"]
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """What is shown: its name, without and with, and the region where it should be."""
    for of in ("words", "looks"):
        before, after = (torch.stack(getattr(each, of)).mean(0) for each in watched)
        for place, phrase in enumerate(phrases):
            name = f"'{', '.join(phrase.said)}'" if of == "words" else f"cell {place + 1}"
            yield name, before[place], after[place], regions[place]


def layers_of(setting: Setting) -> list[str]:
    """The finest in which attention is drawn."""
    sites, method = setting.backbone.sites, setting.method
    strides = {site.stride for site in sites.values() if site.role == "self"}
    drawn = {each for each in strides if each in (method.strides or strides - {1})}
    finest = min(drawn or strides)
    return [name for name, site in sites.items() if site.stride == finest and site.role in ("self", "cross")]


def regions_of(setting: Setting) -> list[Bool[Tensor, "f h w"]]:
    """What is annotated for the words of each edit."""
    return [annotated(each, setting.clip) for each in setting.task.each]


def middle_of(region: Float[Tensor, "f h w"]) -> tuple[int, int]:
    """A cell inside a region, in the frame in the middle of those that have any: nearest to their mean."""
    there = [frame for frame in range(len(region)) if bool(region[frame].any())]
    if not there:
        raise UserError("a region is in no frame, so no cell of it can be shown", came="an empty mask")
    frame = there[len(there) // 2]
    places = region[frame].nonzero().float()
    best = places[(places - places.mean(0)).square().sum(1).argmin()].long()
    return frame, int(best[0] * region.shape[2] + best[1])


def share_in(weight: Float[Tensor, "f h w"], region: Float[Tensor, "f h w"]) -> float:
    return float((weight * region).sum() / weight.sum().clamp_min(TINY))
