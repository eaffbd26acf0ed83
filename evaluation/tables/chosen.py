"""Which column of ours stands for a column of a paper, and why its numbers may not be the paper's kind."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from evaluation.tables.papers import PaperColumn


def family(name: str) -> tuple[str, list[str]]:
    """`q_edit[vit_b_32,raft_large]` -> q_edit and the two in brackets."""
    stem, _, label = name.partition("[")
    return stem, [each for each in re.split(r"[,;+ ]+", label.removesuffix("]")) if each]


def choose(columns: Sequence[PaperColumn], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """For the whole table one column of ours for each of the paper's: the comparable one, otherwise the commonest."""
    counts: dict[str, int] = {}
    for row in rows:
        for name, value in row["metrics"].items():
            if value is not None:
                counts[name] = counts.get(name, 0) + 1
    found = {}
    for column in columns:
        able = [name for name in counts if family(name)[0] == column.family]
        if able:
            found[column.key] = max(able, key=partial(_fitness, column, counts))
    for column in columns:
        if column.ratio and found.keys() >= set(column.ratio):
            found[column.key] = " / ".join(found[key] for key in column.ratio)
    return found


def _fitness(column: PaperColumn, counts: Mapping[str, int], name: str) -> tuple[bool, int, int]:
    """Of a variant of ours: the paper's own before all others, then the plainest, then the commonest."""
    label = family(name)[1]
    return set(label) == set(column.networks), -len(label), counts[name]


def obstacles(columns: Sequence[PaperColumn], chosen: Mapping[str, str]) -> dict[str, str]:
    """For each column why our numbers in it are not the paper's kind; empty where they are."""
    found = {column.key: _obstacle(column, chosen.get(column.key)) for column in columns}
    ratios = {column.key: column.ratio for column in columns if column.ratio}
    return found | {key: next(filter(None, map(found.get, parts)), "") or "" for key, parts in ratios.items()}


def _obstacle(column: PaperColumn, name: str | None) -> str:
    if column.study:
        return "other people were asked, of other clips"
    if column.cost:
        return "measured on another machine"
    if name is None or column.ratio:
        return ""
    label = family(name)[1]
    if set(label) == set(column.networks):
        return ""
    wanted = "+".join(column.networks) or "no variant"
    return f"ours is {name}, the paper's is of {wanted}"
