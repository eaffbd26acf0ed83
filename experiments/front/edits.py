"""One edit, in Python."""

from dataclasses import replace
from typing import Any

from experiments.config.identity import Identity
from experiments.front.clips import ClipLike, Show, Words, clip_or_name, showing
from experiments.front.result import Result
from experiments.front.said import Said
from experiments.jobs import beforehand
from experiments.jobs.edit import fit, make_editor
from experiments.jobs.job import head
from experiments.jobs.one_clip import Wish, made, read
from experiments.jobs.variants import unused
from experiments.report.edit_folder import edit_identity
from experiments.runs.plan import Item, Variant
from freemask.data.one import OneClip
from freemask.types import Backbone, DataSource, EditTask


def edit(
    clip: ClipLike | None = None,
    source: str | None = None,
    target: str | None = None,
    *overrides: str,
    words: Words | None = None,
    model: str | Backbone | None = None,
    progress: Show = "bar",
    **settings: Any,
) -> Result:
    """Edit a clip by changing words in its description, as `freemask edit` does and with its defaults.

    `clip` is a video file, a folder of frames, a picture, a Clip, or a tensor `f 3 h w` in 0..1. `words` says which
    word becomes which ({"car": "bus"}, or "car:bus"); left out, it is read off the prompts. `model` is a name, or what
    `load_model` gave. Everything else that the command takes comes as a text or as a keyword, a dot being two lines.

    >>> result = freemask.edit("my.mp4", "a red car", "a blue car", "method.steps=20", mask="agreement", seed=1)
    >>> result.save("out")
    """
    own = {"clip": clip_or_name(clip), "source": source, "target": target, "words": words}
    said = Said.of(overrides, settings, model, own)
    wish = said.wish()
    with showing(progress) as (report, busy):
        task, data = wish.task(*made(said.config))
        variant = _variant(said, task)
        beforehand.refuse(said.config, task, data, wish.frames.exact, loaded=said.backbone is not None)
        busy("loading the model")
        editor = make_editor(said.config, backbone=said.backbone)
        busy("reading the clip")
        data = ready(data, wish, editor.backbone)
        row = head(Item(task.id, task.stored()), variant)
        outcome = editor.edit(row, task, data, report)
    passed_over = unused(said.command.overrides, [said.command])
    outcome.tell(warnings=[*passed_over, *outcome.row.get("warnings", ())])
    return Result.of(outcome)


def ready(data: DataSource, wish: Wish, backbone: Backbone) -> DataSource:
    """The clip in the size that the model takes. Of a file the first frames are taken, of what is in memory all."""
    if isinstance(data, OneClip):
        return read(data, wish.frames.exact, backbone)
    fit(data, backbone)
    return data


def _variant(said: Said, task: EditTask) -> Variant:
    """A model that was handed in is known by what it is, not by a name."""
    variant = said.command.variant(None, (), lambda config, choices: edit_identity(config, task, choices))
    if said.backbone is None:
        return variant
    identity = Identity({**variant.identity.parts, "model": said.backbone.identity})
    return replace(variant, choices={**variant.choices, "model": None}, identity=identity)
