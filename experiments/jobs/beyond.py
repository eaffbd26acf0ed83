"""What an edit asks for that the model cannot know: one line before it is tried."""

from collections.abc import Mapping
from typing import Any

from freemask.backbones.checkpoint import SHIPPED
from freemask.backbones.weightless import is_random
from freemask.data.doubts import doubts
from freemask.masks.nouns import JOINS, PREPOSITIONS, VERBS
from freemask.types import Backbone, DataSource, EditTask, Text
from freemask.words import bare

WEIGHTS = {
    "embedded": "zeroscope (or modelscope, wan)",
    "embedded_image": "sd15 (or sd14)",
    "embedded_dit": "wan (or zeroscope)",
    "embedded_i2v": "i2vgen_xl",
}


def shipped(model: Mapping[str, Any]) -> str:
    """The name of an embedded model, by its configuration; of any other nothing."""
    path = str(model.get("path", ""))
    return path if path in SHIPPED else ""


def remarks(backbone: Backbone, embedded: str, task: EditTask, data: DataSource) -> list[str]:
    return [*doubts(task), *unknown(backbone, embedded, task, data)]


def meaningless(identity: str) -> list[str]:
    """By the identity of a model."""
    if not is_random(identity):
        return []
    return [
        "this model's weights are random (model.weights): the time and the memory are real, the picture means nothing"
    ]


def repeated(compression: int, frames: int) -> list[str]:
    """Models that compress time take the first frame and then so many at once; the last ones may be too few."""
    lacking = -(frames - 1) % compression
    if not lacking:
        return []
    shown = (
        f"this model wants 1 + {compression} k frames, and is shown the last of {frames} {lacking + 1} times"
    )
    return [f"{shown}; what is too many is cut off afterwards (a clip of {frames + lacking} would fill it)"]


def unknown(backbone: Backbone, embedded: str, task: EditTask, data: DataSource) -> list[str]:
    """`embedded`: as `shipped` gives it. Embedded models know each word of their world by one token, and spell others
    out."""
    if not embedded:
        return []
    words = dict.fromkeys(
        each for prompt in (task.source, task.target) for each in strange(backbone.embed(prompt))
    )
    found = [f"not in this model's vocabulary: {', '.join(words)}"] if words else []
    found += ["the clip comes from a file"] if filmed(data) else []
    advice = f"for filmed clips use model={WEIGHTS[embedded]}"
    world = "the embedded model has only seen its own drawn world"
    return [f"{', and '.join(found)}; {world}: {advice}"] if found else []


def strange(text: Text) -> list[str]:
    """The words that the tokenizer spells in pieces; small words say too little to matter."""
    small = JOINS | PREPOSITIONS | VERBS
    words = dict.fromkeys(bare(word) for word in text.prompt.split())
    return [word for word in words if word.casefold() not in small and _pieces(text, word) > 1]


def _pieces(text: Text, word: str) -> float:
    times = [bare(each) for each in text.prompt.split()].count(word)
    return len(text.columns.get(word, ())) / times


def filmed(data: DataSource) -> bool:
    """Whether the clips are read from files, and not drawn."""
    return getattr(data, "filmed", hasattr(data, "geometry"))
