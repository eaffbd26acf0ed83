"""Before an edit: the heat of its word in every layer and at every time, and which of these maps a mask is made of."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from experiments.app.settings import Asking, said_of, values
from experiments.app.work import Reporter, Shelf
from experiments.config.build import build
from experiments.jobs import beforehand
from experiments.jobs.edit import fit
from experiments.jobs.explain import explained
from experiments.jobs.one_clip import read
from freemask.attention.record import Recording, heat_of_words
from freemask.data.one import OneClip
from freemask.diffusion.inversions import Inversions, Wish
from freemask.errors import UserError
from freemask.masks.around import words as words_of
from freemask.masks.bookshelf import Found, find
from freemask.masks.heat import NAME, find_layer, short
from freemask.masks.look import Seen, look
from freemask.masks.ops import Binarise, iou
from freemask.masks.plan import MaskStrategy, Subject, Wanted
from freemask.masks.several import plan_of
from freemask.masks.strategies.layer import Layer
from freemask.types import Backbone, Clip, Grid, Time, Where

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
            where = _where(self.subject, site, at, heat)
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


def look_at(words: Sequence[str], shelf: Shelf, reporter: Reporter) -> Looked:
    """One inversion, of which every map is kept."""
    asking = Asking.of(words)
    config, task = asking.config, asking.task
    if task.edits:
        todo = "press Edit; freemask edit masks=all shows the masks of several edits together"
        raise UserError(
            "only one edit at a time can be looked at", came=f"{len(task.edits)} edits", todo=todo
        )
    if "steps" not in config["method"]:
        came = f"method={asking.made.choices.get('method')}"
        raise UserError(
            "this method inverts nothing", came=came, expected="one with steps", todo="method=freemask"
        )
    beforehand.refuse(config, task, asking.data, asking.frames)
    strategy = build(config["mask"], "mask")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        reporter.busy("loading the model")
        backbone = shelf.model(config)
        data = read(asking.data, asking.frames, backbone) if isinstance(asking.data, OneClip) else asking.data
        fit(data, backbone)
        clip, times = data.clip(task), backbone.noise_path.times(config["method"]["steps"])
        with build(config["tuning"], "tuning").on(backbone, clip, task, reporter.stage):
            subject = Subject.of(backbone, clip, task, times, keep_object=config["method"].get("keep_object"))
            found = _looked(backbone, subject, strategy, asking, reporter)
    notes = [str(each.message) for each in caught if each.category is UserWarning]
    return replace(found, notes=[*dict.fromkeys([*found.notes, *notes])])


def _looked(
    backbone: Backbone, subject: Subject, strategy: MaskStrategy, asking: Asking, reporter: Reporter
) -> Looked:
    config, name = asking.config, str(asking.made.choices.get("mask"))
    notes: list[str] = []
    book = _book(subject, config, notes)
    one = _one(asking.made.overrides, book)
    keep = heat_of_words(NAME, words_of(subject, one.phrase, one.heat))
    with TemporaryDirectory() as passing:
        store = config["method"].get("inversions") or passing
        latents = backbone.encode(subject.clip.frames)
        inverted = Inversions(store).invert(
            backbone,
            latents,
            subject.given["source"],
            subject.times,
            wish=Wish([keep]),
            progress=reporter.stage,
        )
        maps = {key: heat.detach().float().cpu() for key, heat in inverted.kept.all(NAME).items()}
        seen, truth = None, None
        try:
            found = look(backbone, subject, {name: strategy}, inversions=store, progress=reporter.stage)
            seen, truth = found.seen.get(name), found.truth
            notes += [f"mask={each} cannot work here: {reason}" for each, reason in found.lacking.items()]
        except UserError as error:
            notes.append(f"mask={name} cannot work here: {error.wrong}")
    picked = frozenset() if seen is None else _picked(strategy, subject, maps)
    return Looked(subject, name, maps, picked, book, one, seen, truth, notes)


def _picked(strategy: MaskStrategy, subject: Subject, maps: Maps) -> frozenset[tuple[str, Time]]:
    """What the strategy asks to be recorded."""
    keeps = [keep for keep in strategy.keeps(subject).source if keep.heat is not None]
    wheres = {key: _where(subject, *key, heat) for key, heat in maps.items()}
    return frozenset(key for key, where in wheres.items() if any(keep.wants(where) for keep in keeps))


def _book(subject: Subject, config: Mapping[str, Any], notes: list[str]) -> Found | None:
    folders = config["mask"].get("folders") or [config["paths"]["codebooks"]]
    try:
        return find(subject.origin, folders, base=subject.base)
    except UserError as error:
        notes.append(f"{error.wrong}: MMC has no choice to mark ({error.todo})")
        return None


def _one(words: Sequence[str], book: Found | None) -> Layer:
    """`mask=layer` as the command would make it."""
    kept = [each for each in words if each.lstrip("+~").partition("=")[0].partition(".")[0] != "mask"]
    made = build(values([*kept, "mask=layer"])["mask"], "mask")
    return replace(made, heat=made.heat if book is None else book.book.heat)


def _where(subject: Subject, site: str, time: Time, heat: Tensor) -> Where:
    return Where(subject.sites[site], time, Grid(*heat.shape), ("source",))
