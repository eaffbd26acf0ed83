"""A table of words (FreeMask's Table 1) filled from the settings that ship: what this repository's methods do."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from evaluation.tables.grid import Block, Grid, Part, Shown
from evaluation.tables.paper import written
from evaluation.tables.papers import PaperColumn, PaperLine, PaperTable
from experiments.config.compose import config_of, passed_over
from experiments.tables.lacking import missing, no_method

SAME, OTHER = "same", "differs"


def settings_grid(table: PaperTable) -> tuple[Grid, list[dict[str, Any]]]:
    """The grid, and the same as records."""
    blocks, records = [], []
    for line in table.lines:
        published, ours = table.published(line), _ours(table, line)
        parts = [Part("published", [Shown(written(published[c.key], c)) for c in table.columns])]
        if ours:
            cells = [Shown(written(ours.get(c.key), c)) for c in table.columns]
            apart = [Shown(_compared(ours, published, c)) for c in table.columns]
            parts = [Part("ours", cells), *parts, Part("difference", apart)]
        else:
            lack = no_method(line)
            parts = [Part(f"ours: {lack.mark}", [Shown("-")] * len(table.columns)), *parts]
        blocks.append(Block(line.title, parts))
        records += [
            {
                "line": line.key,
                "column": column.key,
                "ours": ours.get(column.key),
                "published": published[column.key],
            }
            for column in table.columns
        ]
    lacks = [no_method(line) for line in table.lines if not line.settings]
    notes = [
        f"Published: {table.source['paper']}, Table {table.source['table']}.",
        "; ".join(f"{column.title}: {column.about}" for column in table.columns) + ".",
        *(
            f"Ours of {line.title}: the settings that `freemask run {' '.join(line.settings)}` composes."
            for line in table.lines
            if line.settings
        ),
        "Columns without a setting of ours show a dash.",
    ]
    return Grid(
        f"{table.title}: {table.about}", [c.title for c in table.columns], blocks, notes, missing(lacks)
    ), records


def _ours(table: PaperTable, line: PaperLine) -> dict[str, bool | str]:
    """A method that does not look at a group (a mask, a fusion) does nothing of what this says."""
    if not line.settings:
        return {}
    cfg = config_of("run", list(line.settings))
    found: dict[str, bool | str] = {}
    for column in table.columns:
        if column.setting is not None:
            said = str(OmegaConf.select(cfg, column.setting))
            looked_at = not passed_over(cfg, column.setting.partition(".")[0])
            yes = looked_at and said in column.when
            found[column.key] = column.words.get(said, said) if column.words else yes
        for setting, words in column.also.items():
            said = str(OmegaConf.select(cfg, setting))
            found |= {column.key: words[said]} if said in words else {}
    return found


def _compared(ours: Mapping[str, Any], published: Mapping[str, Any], column: PaperColumn) -> str:
    if column.key not in ours:
        return "-"
    return SAME if ours[column.key] == published[column.key] else OTHER
