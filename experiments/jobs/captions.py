"""What the pictures of an edit say in words: what a mask means, and which edit they show."""

from collections.abc import Mapping
from typing import Any

from freemask.errors import UserError
from freemask.masks.words import located
from freemask.types import EditTask

DOT = " · "


def holds_pixels(facts: Mapping[str, Any]) -> bool:
    """Whether the source's pixels are put back outside the mask. A method that says nothing of it does."""
    return "mask_acts_on" not in facts or bool(_latents(facts))


def of_mask(task: EditTask, facts: Mapping[str, Any]) -> str:
    where = f"where {_words(task)} is seen; " if _words(task) else ""
    if not holds_pixels(facts):
        return f"{where}outlined only, for it acts on attention ({facts['mask_acts_on']}) and holds no pixels"
    return f"{where}clear: the edit may change it, veiled: held to the source" + "".join(_latents(facts))


def _latents(facts: Mapping[str, Any]) -> list[str]:
    """When the latents outside the mask are the source's."""
    parts = str(facts.get("mask_acts_on", "")).split(", ")
    return [part.removeprefix("latents") for part in parts if part.startswith("latents")]


def about(row: Mapping[str, Any]) -> list[str]:
    """The lines below a sheet, by which it can be told from every other one."""
    choices, facts = row.get("choices") or {}, row.get("facts") or {}
    words = ", ".join(f"{old} -> {new or '(gone)'}" for old, new in (row.get("words") or {}).items())
    clip = "" if str(row.get("clip", "")) in str(row["task"]) else f"clip {row['clip']}"
    task = [row["task"], clip, f"{row['kind']} edit" if row.get("kind") else "", words]
    made = [f"method {row['method']}"] if row.get("method") else []
    made += [_named(choices, name) for name in ("model", "fusion")]
    made += [f"{row['steps']} steps"] if row.get("steps") else []
    made += [f"seed {row['seed']}"] if row.get("seed") is not None else []
    made += [f"variant {row['variant']}"] if row.get("variant") else []
    mask = [_named(choices, "mask")]
    mask += [
        f"{key.removeprefix('mask_')} {facts[key]}" for key in ("mask_layer", "mask_time") if key in facts
    ]
    lines = (DOT.join(filter(None, each)) for each in (task, made, mask))
    return [line for line in lines if line]


def _named(choices: Mapping[str, Any], group: str) -> str:
    return f"{group} {choices[group]}" if choices.get(group) else ""


def _words(task: EditTask) -> str:
    try:
        return ", ".join(f"'{phrase}'" for phrase in located(task))
    except UserError:  # the masks did not ask for words
        return ""
