"""What a verb says of itself. Each module of `experiments/commands` with a VERB and a `main` is one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from experiments.config.texts import EDIT as EDIT
from experiments.config.texts import PATHS as PATHS


@dataclass(frozen=True)
class Verb:
    """`prompts` and `paths` are keys whose values travel as plain text: prompts always, paths unless swept.
    `positional` is the key that a bare word stands for, one or `several` of them. `config`, the name of its YAML in
    conf, is found: `main` gets (configuration, flags), or (words, flags) where there is none. With `joint`, the
    combinations of -m are the variants of one start: `flags["variants"]`. `reads_rows`: many rows, and no model.
    `works_on_files`: what the command names must be there, and is looked for before `main` is imported. `notes` stand
    in the help below the keys, which explain themselves in the verb's YAML. `names`: keys whose values have names that
    completion offers: runs, tables, figures, or the options of a group. `lacking`: what the configuration lacks may be
    said by another key. `actions`: what a first word without a key stands for before it may be anything else: `serve`
    for do=serve."""

    summary: str
    prompts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    positional: str | None = None
    several: bool = False
    multirun: bool = False
    joint: bool = False
    json: bool = False
    reads_rows: bool = False
    works_on_files: bool = False
    lacking: bool = False
    examples: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    config: str | None = None
    actions: Mapping[str, str] = field(default_factory=dict)
