"""What was seen before an edit: every map of its word's heat, and a mask of any one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from experiments.app.settings import said_of
from experiments.jobs.explain import explained
from freemask.attention.record import Recording
from freemask.masks.bookshelf import Found
from freemask.masks.heat import find_layer, short
from freemask.masks.look import Seen
from freemask.masks.ops import Binarise, iou
from freemask.masks.plan import Subject, Wanted
from freemask.masks.several import plan_of
from freemask.masks.strategies.layer import Layer
from freemask.types import Clip, Grid, Time, Where

Maps = Mapping[tuple[str, Time], Tensor]


class Map(NamedTuple):
    """One map at the frames' size: the heat that is compared with the threshold, and the mask."""

    heat: Float[Tensor, "f h w"]
    mask: Float[Tensor, "f h w"]
    score: float | None  # IoU with the clip's annotation, where there is one


@dataclass(frozen=True, eq=False)
class Looked:
    """`maps` are as they were recorded, each on its layer's grid. `picked` are those that the mask strategy `name`
    takes; `book` is the model's codebook. `one` makes a mask of a single map, as `mask=layer` does."""

    subject: Subject
    name: str
    maps: Maps
    picked: frozenset[tuple[str, Time]]
    book: Found | None
    one: Layer
    seen: Seen | None
    truth: Tensor | None
    notes: Sequence[str]

    @property
    def clip(self) -> Clip:
        return self.subject.clip

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys(layer for layer, _ in self.maps))

    @property
    def times(self) -> list[Time]:
        return sorted({time for _, time in self.maps})

    @property
    def threshold(self) -> float:
        at = self.one.binarise.threshold
        return float(at) if isinstance(at, float | int) else 0.2

    def start(self) -> tuple[int, int]:
        """Layer and time to begin with: the first that the strategy takes, or the codebook's, or the middle."""
        picked = [each for each in self.maps if each in self.picked]
        layers, times = self.layers, self.times
        layer, time = (
            picked[len(picked) // 2] if picked else (layers[len(layers) // 2], times[len(times) // 2])
        )
        if not picked and self.book is not None and self.book.book.best_site in layers:
            layer, time = self.book.book.best_site, self.book.book.nearest_time(times)
        return layers.index(layer), times.index(time)

    def strategy(self, layer: int, time: int, threshold: float) -> Layer:
        """`mask=layer` with what the sliders say."""
        binarise = Binarise(**{**self.one.binarise.settings(), "threshold": threshold})  # type: ignore
        at = self._at(time)
        return replace(
            self.one, layer=self._layer(layer), binarise=binarise, time=at.get("time"), share=at.get("share")
        )

    def words(self, layer: int, time: int, threshold: float) -> tuple[str, ...]:
        """The same for the command."""
        found = ["mask=layer", said_of("mask.layer", self._layer(layer))]
        found += [said_of(f"mask.{key}", value) for key, value in self._at(time).items()]
        found += [] if threshold == self.threshold else [said_of("mask.binarise.threshold", threshold)]
        found += [] if self.one.heat == "word" else [said_of("mask.heat", self.one.heat)]
        return tuple(found)

    def map(self, layer: int, time: int, threshold: float) -> Map:
        strategy, frames = self.strategy(layer, time, threshold), self.clip.frames
        recording, grid = Recording(), Grid(len(frames), *frames.shape[-2:])
        (keep,) = strategy.keeps(self.subject).source
        for (site, at), heat in self.maps.items():
            where = where_of(self.subject, site, at, heat)
            if keep.wants(where):
                recording.put(keep.name, where, heat)
        plan = plan_of(strategy, self.subject, recording, Recording())
        wanted = Wanted("self", self.times[time], grid)
        assert plan.soft is not None
        mask = plan(wanted)
        return Map(plan.soft(wanted), mask, None if self.truth is None else iou(mask >= 0.5, self.truth))

    def lines(self) -> list[str]:
        """What the strategy takes, in words."""
        facts = {} if self.seen is None else self.seen.facts
        said = explained({"choices": {"mask": self.name}, "facts": facts})
        score = "" if self.seen is None or self.seen.score is None or self.truth is None else self.seen.score
        scored = [f"IoU with the clip's annotation: {score:.3f}"] if score != "" else []
        return [*(f"{key}: {said[key]}" for key in ("mask", "codebook") if key in said), *scored]

    def _layer(self, place: int) -> str:
        """By the beginning of its path where that is enough."""
        layer = self.layers[place]
        return short(layer) if find_layer(self.subject.sites, short(layer)) == layer else layer

    def _at(self, place: int) -> dict[str, Any]:
        """A time, or where times are fractions its place on the way."""
        time, times = self.times[place], self.times
        return {"time": time} if isinstance(time, int) else {"share": place / max(1, len(times) - 1)}


def where_of(subject: Subject, site: str, time: Time, heat: Tensor) -> Where:
    """The call of the network that a map was recorded in."""
    return Where(subject.sites[site], time, Grid(*heat.shape), ("source",))
