"""Before an edit: the heat of its word in every layer and at every time, and which of these maps a mask is made of."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

from experiments.app.looked import Looked, Maps, where_of
from experiments.app.settings import Asking, values
from experiments.app.work import Reporter, Shelf
from experiments.config.build import build
from experiments.jobs import beforehand
from experiments.jobs.edit import fit
from experiments.jobs.one_clip import read
from freemask.attention.record import heat_of_words
from freemask.data.one import OneClip
from freemask.diffusion.inversions import Inversions, Wish
from freemask.errors import UserError
from freemask.masks.around import words as words_of
from freemask.masks.bookshelf import Found, find
from freemask.masks.heat import NAME
from freemask.masks.look import look
from freemask.masks.plan import MaskStrategy, Subject
from freemask.masks.strategies.layer import Layer
from freemask.types import Backbone, Time


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
    wheres = {key: where_of(subject, *key, heat) for key, heat in maps.items()}
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
