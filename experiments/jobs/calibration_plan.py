"""What `freemask calibrate` plans: the words to measure, and the models to measure them on."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.config import choices
from experiments.config.fingerprint import Identity
from experiments.config.identity import backbone_identity, digest_of, identity_over
from experiments.jobs.calibrate import Measure, Word, mask_of, words_of
from experiments.runs.plan import Variant
from freemask.errors import UserError, nearest
from freemask.types import DataSource, EditTask


def words_to_measure(tasks: Sequence[EditTask]) -> list[Word]:
    words, unclear = words_of(tasks)
    for task, why in unclear.items():
        print(f"left out: {task}: {why}")
    if not words:
        came = f"{len(tasks)} tasks"
        raise UserError("no task says which word to look at", came=came, todo="add words to them")
    return words


def variants_of(
    config: Mapping[str, Any],
    chosen: Mapping[str, str | None],
    tasks: Sequence[EditTask],
    models: Sequence[str],
) -> list[Variant]:
    """The configured model, or one variant for each of several; those that are not on this machine are left out."""
    listed = digest_of(tasks)

    def variant(name: str | None, model: Mapping[str, Any], option: str | None) -> Variant:
        own = {
            key: config[key]
            for key in ("data", "steps", "phrase", "heat", "heads", "binarise", "overlap", "budget")
        }
        made = {**own, "model": model, "speed": config["speed"]}
        picked = {"model": option, "data": chosen.get("data")}
        whole = identity_over(listed, {**made, "method": {}, "metric": {}, "seed": None}, picked)
        parts = {key: whole.parts[key] for key in ("model", "data")} | Measure.of(made).parts()
        return Variant(name, (), picked, made, Identity(parts))

    if not models:
        return [variant(None, config["model"], chosen.get("model"))]
    return [variant(name, model, name) for name, model in _here(config, models)]


def _here(config: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Models by name with their settings; the network is never asked. Behind a name there may be settings of it."""
    seen: set[str] = set()
    for entry in dict.fromkeys(names):
        name, model = _asked(entry)
        if name in seen:
            came = f"models=[{', '.join(names)}]"
            raise UserError("each model has one curve", came=came, expected=f"'{name}' once")
        seen.add(name)
        own = (("local_files_only", True), ("device", config["model"].get("device")))
        model |= {key: value for key, value in own if key in model and value is not None}
        try:
            if model.get("path"):
                backbone_identity(model)
        except UserError as error:
            print(f"left out: {name}: {error.wrong}")
            if "pickle" in error.todo:
                print(f"  to have it: models=[..., '{name} path=PLACE allow_pickle=true']")
            continue
        yield name, model


def _asked(entry: str) -> tuple[str, dict[str, Any]]:
    """`lavie`, or `lavie path=DIR allow_pickle=true`."""
    name, *settings = shlex.split(entry) or [""]
    choices.option("model", name)
    model = choices.content("model", name)
    for each in settings:
        key, equals, value = each.partition("=")
        if not equals or key not in model:
            wrong, todo = f"model={name} has no setting '{key}'", f"freemask list model {name}"
            raise UserError(wrong, came=entry, expected=nearest(key, model), todo=todo)
        model[key] = yaml.safe_load(value)
    return name, model


def model_name(variant: Variant) -> str:
    """`embedded`, `zeroscope_v2_576w`, `random`: where the weights come from, without the folders before it."""
    model = variant.config["model"]
    path = model.get("path")
    return Path(str(path)).name if path else str(variant.choices["model"])


def refuse_without_masks(data: DataSource, words: Sequence[Word]) -> None:
    """Before the model is loaded: at least one item must have something to be compared with."""
    if not any(_has_mask(data, each) for each in words):
        came = ", ".join(each.one.id for each in words[:5]) + (", ..." if len(words) > 5 else "")
        expected = "clips with annotations, under the words of their tasks: data=world_train, data=davis"
        raise UserError("no clip has a mask of what its task is about", came=came, expected=expected)


def _has_mask(data: DataSource, word: Word) -> bool:
    try:
        return mask_of(data.clip(word.task), word.word) is not None
    except Exception:
        return True  # a clip that cannot be read becomes a row
