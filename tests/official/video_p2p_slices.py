"""Stored attention maps of a Video-P2P case: head 0, streams (source, target), text maps of the first words, and of
temporal maps (called `self`) every fourth pixel."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from freemask.attention.math import attend, marked
from freemask.attention.record import Keep, Recording
from freemask.masks.plan import Subject
from freemask.methods.editing import Editing
from freemask.types import QKV, Time, Where
from tests.official.ledger import FORCED, relative
from tests.official.slices import PLACES
from tests.official.tuned import Scene

KINDS = {"cross": "cross", "temporal": "self"}
EVERY = 4  # pixel of a temporal map


@dataclass(frozen=True)
class Slice:
    """The map of a layer at step `i`, before the controls or after; so many columns are stored."""

    name: str
    layer: str
    i: int
    t: Time
    columns: int

    def plain(self, stream: str) -> Keep:
        """The map of a stream as the network makes it."""
        return self._keep(lambda where, qkv: attend(qkv), stream)

    def keep(self, editing: Editing) -> Keep:
        """The target's: what our edit really uses, or the network's own."""
        return self._keep(editing.fusing(self.i), "cond") if "_after/" in self.name else self.plain("cond")

    def judge(self, scene: Scene, source: Recording, target: Recording) -> None:
        """What is recorded of both streams; nothing controls the source's."""
        ours = torch.stack([kept.all(self.name)[self.layer, self.t] for kept in (source, target)])
        kind = self.name.split("/")[1].removeprefix("attn_")
        where, limit = self.name.partition(f"{kind}/")[2], scene.case.number("attention_maps", 1e-4)
        scene.ledger.note(
            f"edit: attention {kind}", FORCED, where, relative(ours, scene.case[self.name]), limit
        )

    def _keep(self, tap, stream: str) -> Keep:
        """With indicators of columns as values, what attention returns is those columns of the map."""

        def shrink(where: Where, qkv: QKV) -> Tensor:
            columns = min(self.columns, qkv.k.shape[-2])
            out = tap(where, replace(marked(qkv, [(each,) for each in range(columns)]), hidden=None))
            maps = out[where.streams.index(stream), :, 0, :, :columns]
            return maps[::EVERY] if where.site.role == "temporal" else maps

        return Keep(self.name, lambda where: (where.site.name, where.t) == (self.layer, self.t), shrink)


def stored(scene: Scene, subject: Subject) -> list[Slice]:
    known, found = _layers(scene, subject), []
    for part in ("edit/attn_before/", "edit/attn_after/"):
        for name in scene.case.names(part):
            *_, moment, key, place = name.split("/")
            i = int(moment.removeprefix("step"))
            columns = scene.case.tensors[name]["shape"][-1]
            found.append(Slice(name, known[key][int(place)], i, scene.place(i).t, columns))
    return found


def _layers(scene: Scene, subject: Subject) -> dict[str, list[str]]:
    """`down_cross` -> its layers in the order of the forward pass, up to a sixteenth of the frames' side."""
    most, found = (int(scene.case.about["size"]) // 16) ** 2, {}
    for name, site in subject.sites.items():
        grid = subject.grids[name]
        if site.role in KINDS and grid.height * grid.width <= most:
            found.setdefault(f"{PLACES[name.split('.')[0]]}_{KINDS[site.role]}", []).append(name)
    return found
