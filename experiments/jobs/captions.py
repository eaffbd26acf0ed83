"""What the pictures of an edit say in words: what a mask means, and which edit they show."""

from collections.abc import Mapping
from typing import Any

from experiments.jobs.explain import around, explained
from freemask.errors import UserError
from freemask.masks.words import located
from freemask.types import EditTask

DOT = " · "


def holds_pixels(facts: Mapping[str, Any]) -> bool:
    """Whether the source's pixels are put back outside the mask. A method that says nothing of it does."""
    return "mask_acts_on" not in facts or bool(_latents(facts))


def of_mask(task: EditTask, facts: Mapping[str, Any]) -> str:
    quoted = ", ".join(f"'{phrase}'" for phrase in sought(task, facts))
    where = around(facts) or (f"where {quoted} is seen" if quoted else "")
    where += "; " if where else ""
    if not holds_pixels(facts):
        return f"{where}outlined only, for it acts on attention ({facts['mask_acts_on']}) and holds no pixels"
    return f"{where}clear: the edit may change it, veiled: held to the source" + "".join(_latents(facts))


def _latents(facts: Mapping[str, Any]) -> list[str]:
    """When the latents outside the mask are the source's."""
    parts = str(facts.get("mask_acts_on", "")).split(", ")
    return [part.removeprefix("latents") for part in parts if part.startswith("latents")]


def about(row: Mapping[str, Any]) -> list[str]:
    """The lines below a sheet, by which it can be told from every other one: the block of an edit."""
    variant = f"variant {row['variant']}" if row.get("variant") else ""
    lines = [f"{name}: {said}" for name, said in explained(row).items()]
    return [DOT.join(filter(None, [str(row["task"]), variant])), *lines]


def sought(task: EditTask, facts: Mapping[str, Any]) -> list[str]:
    """The words that a mask shows the place of."""
    if around(facts):
        return [around(facts)]
    if task.kind == "background" and not task.words:
        return []
    try:
        return list(located(task))
    except UserError:  # the masks did not ask for words
        return []
