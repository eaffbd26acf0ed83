"""Making a study: all of it or nothing, and never over one that is there, whose pages may be with people already."""

import json
import math
import os
import random
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.runs.rows import cannot_write, write_text
from experiments.study import clips
from experiments.study.design import Design
from experiments.study.drawn import SAMPLE, turns
from experiments.study.folder import ANSWERS, INDEX, KEY, PAGE, STUDIES, Study
from experiments.study.gather import Material, drawn
from experiments.study.items import Drawn, draw
from experiments.study.page import document
from freemask.errors import UserError

SECONDS = 8  # that a look takes, and each question


def make(run: Path, name: str, design: Design, material: Material, seed: int) -> tuple[Study, bool]:
    """The study, and whether it is new."""
    folder, tasks = run / STUDIES / name, drawn(material, design.sets, seed)
    settings = _settings(design, material, tasks)
    if (folder / KEY).exists():
        return _there(folder, settings), False
    if folder.exists():
        raise UserError("the study's place is taken", came=folder, expected="no folder yet", todo="name=NAME")
    half = folder.with_name(f".{name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write(half, design, material, tasks, settings)
        half.replace(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return Study.read(folder), True


def _write(
    half: Path, design: Design, material: Material, tasks: Sequence[str], settings: Mapping[str, Any]
) -> Study:
    """Ids, names and order come from a number that nobody knows: the page must not tell who made what."""
    rng = random.Random(secrets.token_hex(16))
    found = draw(material, tasks, design, rng)
    files = clips.leave(half / PAGE, material, found.names, rng)
    public = _public(design, found, files)
    methods = {each.name: {"variant": each.variant, "run": each.run} for each in material.methods}
    listed = [INDEX, *sorted(set(files.values()))]
    study = Study(
        half, public["study"], design, public, found.meant, methods, material.reference, listed, settings
    )
    write_text(half / PAGE / INDEX, document(public))
    os.utime(half / PAGE / INDEX, (clips.MOMENT, clips.MOMENT))
    (half / ANSWERS).mkdir()
    write_text(half / KEY, json.dumps(study.record(), indent=1, ensure_ascii=False))
    return study


def _public(design: Design, found: Drawn, files: Mapping[str, str]) -> dict[str, Any]:
    """All that raters get."""
    items = [
        {
            **each,
            "source": each["source"] and files[each["source"]],
            "entries": [{"id": one["id"], "file": files[one["file"]]} for one in each["entries"]],
        }
        for each in found.shown
    ]
    public = {
        **{"study": found.id(), "kind": design.kind, "criteria": [dict(each) for each in design.criteria]},
        **{
            "values": design.values,
            "tie": design.tie,
            "repeats": design.repeats,
            "stacks": found.stacks,
            "items": items,
        },
    }
    count = len(turns(public, SAMPLE))
    return public | {"minutes": math.ceil(count * SECONDS * (1 + len(design.criteria)) / 60)}


def _settings(design: Design, material: Material, tasks: Sequence[str]) -> dict[str, Any]:
    """What makes two studies the same; the rules for raters may change afterwards."""
    said = {
        key: each
        for key, each in design.record().items()
        if key not in ("allowed", "apart", "raters", "about")
    }
    methods = {each.name: each.run for each in material.methods}
    return json.loads(json.dumps({"design": said, "methods": methods, "tasks": list(tasks)}))


def _there(folder: Path, settings: Mapping[str, Any]) -> Study:
    study = Study.read(folder)
    differ = [key for key, each in settings.items() if study.settings.get(key) != each]
    if differ:
        told = ["another design" if key == "design" else f"other {key}" for key in differ]
        raise UserError(
            "another study of this name is there already, and stays: its page may be with people",
            came=f"{folder}, made with {' and '.join(told)}",
            expected="the same study, or a name of its own",
            todo="name=NAME makes another one",
        )
    return study
