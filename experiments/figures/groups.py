"""What plain editing knows of instances: groups of cells by what they look at in the clip's own self-attention, at
several layers, times and numbers of groups; and where the words of each edit go in plain editing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from experiments.figures.drawn import TINY, Drawn, groups, heat, shown
from experiments.figures.mmc import spread
from experiments.figures.setting import Setting
from experiments.figures.strips import Strips
from freemask.attention.math import attend
from freemask.attention.record import Recording, heat_of_words, recorder
from freemask.attention.rewire import by_themselves, looking
from freemask.diffusion.guidance import given_to
from freemask.diffusion.loops import invert
from freemask.errors import UserError
from freemask.masks.ops import resize
from freemask.masks.strategies.clusters import grouped, within_frames
from freemask.masks.words import annotated
from freemask.methods.regional import phrases_of
from freemask.types import NO_TAPS, QKV, Backbone, Given, Stream, Taps, Time, Where

COUNTS = (3, 5, 8)  # groups; the first is shown at every layer and time
SHARES = (0.85, 0.5, 0.15)  # of the path, from noise to the clip
STEPS = 10  # of an inversion, where the method does not say
Looks = dict[tuple[int, Time], Float[Tensor, "f n m"]]  # by the size of cells, and the time


def measured(setting: Setting, frames: int) -> Drawn:
    """Of as many frames as are shown, the groups; of all, the edit and its words."""
    clip, task = setting.clip, setting.task
    source = shown(clip.frames, frames)
    looks = looks_of(setting, spread(len(clip.frames), frames))
    strides, times = sorted({stride for stride, _ in looks}), sorted({t for _, t in looks}, reverse=True)
    some = spread(len(clip.frames), frames)
    regions = [annotated(each, clip)[some].float() for each in task.each]
    rows: dict[str, list] = {"source": [source] * len(times)}
    told = []
    kinds = [(COUNTS[0], stride) for stride in strides] + [(count, strides[0]) for count in COUNTS[1:]]
    for count, stride in kinds:
        found = [labels_of(looks[stride, t], count, setting) for t in times]
        rows[f"{count} groups\ncells of {stride}"] = [
            groups(each, clip.frames[some], frames) for each in found
        ]
        if len(regions) > 1:
            alike = ", ".join(f"{mixed(each, regions):.0%}" for each in found)
            told.append(f"{count} groups, cells of {stride}: {alike}")
    edited, words = words_of(setting)
    most = max((float(each.max()) for each in words.values()), default=0)
    maps = {f"'{name}'": [heat(each / max(most, TINY), clip.frames, frames)] for name, each in words.items()}
    beside = {"source": [source], "edited": [shown(edited, frames)], **maps}
    shares = f" How far the regions of two edits lie in the same groups, at these times: {'; '.join(told)}."
    about = (
        f"Groups are of {STEPS} steps of inversion.{shares * bool(told)} Maps of words: mean of all steps of"
        f" {type(setting.method).__name__} in the text layers with the finest cells, on one scale. {setting.about}."
    )
    titles = [f"t = {t:.0f}" for t in times]
    whole = [f"{task.source} → {task.target}"]
    return Drawn({"groups": Strips(rows, titles), "words": Strips(beside, whole)}, about)


def looks_of(setting: Setting, frames: Sequence[int]) -> Looks:
    """What each cell of a frame looks at within it, in the inversion of the clip: mean over the layers of one size of
    cells, the three finest."""
    backbone, clip = setting.backbone, setting.clip
    strides = sorted({site.stride for site in backbone.sites.values() if site.role == "self"})[:3]
    if not strides:
        came = "a model without spatial self-attention"
        raise UserError(
            "groups are of what looks at what within a frame", came=came, expected="an image model"
        )
    path = backbone.noise_path.times(STEPS)
    times = [path[min(STEPS - 1, int(share * STEPS))] for share in SHARES]
    kept: dict[tuple[int, Time], list[Tensor]] = {}

    def tap(where: Where, qkv: QKV) -> Tensor:
        """Keys are the frames' own here; whom the model has them look at follows."""
        if where.site.role == "self" and where.site.stride in strides and where.t in times:
            part = QKV(qkv.q[:, frames], qkv.k[:, frames], qkv.v[:, frames], qkv.scale)
            kept.setdefault((where.site.stride, where.t), []).append(within_frames(where, part).float().cpu())
        return attend(looking(qkv, where.site.look))

    given = given_to(backbone, clip, backbone.embed(setting.task.source))
    taps = Taps(tap, look=by_themselves)
    invert(
        backbone,
        backbone.encode(clip.frames),
        lambda x, t: backbone.predict(x[None], t, {"source": given}, taps=taps)[0],
        path,
    )
    return {key: torch.stack(each).mean(0) for key, each in kept.items()}


def labels_of(looks: Float[Tensor, "f n m"], count: int, setting: Setting) -> Int[Tensor, "f h w"]:
    _, _, height, width = setting.clip.frames.shape
    high = round((looks.shape[1] * height / width) ** 0.5)
    rng = Generator().manual_seed(setting.seed)
    return torch.stack([grouped(each, count, rng).reshape(high, -1) for each in looks])


def mixed(labels: Int[Tensor, "f h w"], regions: Sequence[Float[Tensor, "f oh ow"]]) -> float:
    """How much the groups of two regions have in common: the overlap of their shares, mean over frames and pairs. 1
    means that groups do not tell them apart at all."""
    count = int(labels.max()) + 1
    _, height, width = labels.shape
    small = [resize(each, height, width) for each in regions]
    found = []
    for frame, of_frame in enumerate(labels):
        shares = [
            torch.bincount(of_frame[each[frame] > 0], minlength=count).float()
            for each in small
            if bool(each[frame].any())
        ]
        for a, b in combinations([each / each.sum() for each in shares], 2):
            found.append(float(torch.minimum(a, b).sum()))
    return sum(found) / max(1, len(found))


@dataclass
class Recorded:
    """A model whose calls are recorded."""

    model: Backbone
    tapped: Callable[[Taps], Taps]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict(
        self, x: Tensor, t: Time, given: dict[Stream, Given], *, taps: Taps = NO_TAPS
    ) -> Float[Tensor, "s f c h w"]:
        return self.model.predict(x, t, given, taps=self.tapped(taps))


def words_of(setting: Setting) -> tuple[Tensor, dict[str, Float[Tensor, "f h w"]]]:
    """A plain edit, and where the target's words of each edit went in it."""
    backbone, task = setting.backbone, setting.task
    phrases = phrases_of(task.each, backbone.embed(task.target), described=True, first=False)
    finest = min(site.stride for site in backbone.sites.values() if site.role == "cross")
    layers = [name for name, site in backbone.sites.items() if (site.role, site.stride) == ("cross", finest)]
    keeps = [
        heat_of_words(", ".join(each.said), each.columns, sites=layers) for each in phrases if each.columns
    ]
    into = Recording()

    def tapped(taps: Taps) -> Taps:
        return Taps(recorder(keeps, into, taps.attention), taps.features, taps.look)

    made: Any = Recorded(backbone, tapped)
    edit = setting.method(made, setting.clip, task, setting.rng())
    maps = {keep.name: torch.stack(list(into.all(keep.name).values())).mean(0) for keep in keeps}
    return edit.frames, {name: each.float().cpu() for name, each in maps.items()}
