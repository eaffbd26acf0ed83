"""What each variant was made with: its options, its settings, the command that repeats it. All of it comes from the
records and the frozen plans; where those say nothing, nothing is said."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from experiments.config.compose import OPTIONAL, typed
from experiments.config.fingerprint import leaves
from experiments.config.texts import RUN
from experiments.runs.record import Record
from experiments.runs.run import Run
from experiments.runs.sources import LAUNCH

GROUPS = (
    "method",
    "model",
    "mask",
    "fusion",
    "flow",
    "first_frame",
    "interpolation",
    "tuning",
    "data",
    "metric",
)
YOUNG = ("flow", "first_frame", "interpolation", "tuning")  # groups that older records do not know
CONTENT = "content "  # of a file, where its name does not count (`experiments/config/identity.py`)
SILENT = ("data.task_list",)  # what differs there has a name of its own
ONCE = ("start", "retry")  # said of one start, and not when all is repeated
OF_MANY = ("variants", "only", "reference")
ALONE = [f"{key}=null" for key in OF_MANY]
GONE = "# only what counts for the results: the plan of this run is gone\n"


@dataclass(frozen=True)
class Made:
    """Of one variant. `counts` are the settings that change results by the keys that one types, `shown` the same in
    words; `typed` is what was typed besides options and launch. Empty: not recorded."""

    choices: Mapping[str, str | None] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    typed: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    command: str = ""
    whole: str = ""  # the command of the run that it is a variant of
    identity: str = ""

    @property
    def whole_known(self) -> bool:
        """Whether what is not among its settings is not there, rather than not recorded."""
        return bool(self.config) and self.choices.keys() >= {*GROUPS} - {*YOUNG}


def made_by(run: Run) -> dict[str | None, Made]:
    records = {name: Record.seen(store.folder) for name, store in run.stores.items()}
    frozen = _frozen(run, records)
    return {name: _made(run, name, each, frozen.get(name)) for name, each in records.items()}


def by_rows(row: Mapping[str, Any]) -> Made:
    """What a row says of it, where no record does."""
    said = {"method.steps": row.get("steps"), "seed": row.get("seed")}
    told = {key: value for key, value in said.items() if value is not None}
    choices = row.get("choices") or ({"method": row["method"]} if row.get("method") else {})
    return Made(choices, told, {key: _spelled(value) for key, value in told.items()})


def _frozen(run: Run, records: Mapping[str | None, Record]) -> dict[str | None, Mapping[str, Any]]:
    """The configurations in the plans, of the latest plan that has the variant as it is."""
    found: dict[str | None, Mapping[str, Any]] = {}
    for plan in run.plans():
        for each in plan.get("variants", ()) if plan.get("job") == run.record.job else ():
            record = records.get(each.get("name"))
            if record is not None and each.get("identity") == record.told.get("identity"):
                found[each.get("name")] = each.get("config") or {}
    return found


def _made(run: Run, name: str | None, record: Record, config: Mapping[str, Any] | None) -> Made:
    counts = dict(leaves(_as_typed(record.parts, record.choices)))
    names = dict(leaves(_as_typed(config or {}, record.choices)))
    counts = {key: each for key, each in counts.items() if not key.endswith("_target_") and key not in SILENT}
    whole = config or record.parts
    return Made(
        choices=record.choices,
        counts=counts,
        shown={key: _spelled(each, names.get(key)) for key, each in counts.items()},
        typed=_keys(run.record.overrides) | _keys(record.overrides),
        config=("" if config else GONE) + _yaml(_as_typed(whole, record.choices)) if whole else "",
        command=_command(run, name, record),
        whole="" if name is None else _whole(run),
        identity=str(record.told.get("identity", "")),
    )


def _as_typed(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> dict[str, Any]:
    """With mask and fusion beside the method, as they are typed; without them where the method looks at neither."""
    method, found = dict(config.get("method") or {}), {}
    for group in OPTIONAL:
        if choices.get(group) and isinstance(method.get(group), Mapping):
            found[group], method[group] = method[group], f"${{{group}}}"
        elif choices.get(group) and group in config:
            found[group] = config[group]
    rest = {key: each for key, each in config.items() if key not in ("method", *OPTIONAL)}
    return {**({"method": method} if method else {}), **found, **rest}


def _spelled(value: Any, named: Any = None) -> str:
    """As it is typed; a file by its name, and a little of its content."""
    if isinstance(value, str) and value.startswith(CONTENT):
        content = value.removeprefix(CONTENT)[:8]
        return f"content {content}" if named is None else f"{named} (content {content})"
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _yaml(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(json.loads(json.dumps(config, default=str)), sort_keys=False, allow_unicode=True)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _keys(overrides: Sequence[str]) -> dict[str, str]:
    """What was typed by key; options of groups and what belongs to a launch are known otherwise."""
    skipped = (*LAUNCH, "variants")
    said = {_key(each): each.partition("=")[2] for each in overrides}
    return {
        key: each for key, each in said.items() if key not in GROUPS and key.partition(".")[0] not in skipped
    }


def _command(run: Run, name: str | None, record: Record) -> str:
    """Repeats this variant alone, in a folder of its own."""
    words = [each for each in run.record.overrides if _key(each) not in (*OF_MANY, "name")]
    if name is not None:
        # An experiment may have variants of its own.
        words += ALONE if any(_key(each) == "experiment" for each in words) else []
        words += record.overrides
    return _run(run, words, f"name={run.folder.resolve().name}-{name or 'again'}")


def _whole(run: Run) -> str:
    """Repeats all variants, whether they were typed, came from an experiment, or from -m."""
    variants = run.record.variants or {}
    words = [each for each in run.record.overrides if _key(each) not in OF_MANY]
    named = (f"{name}: [{', '.join(map(_listed, own))}]" for name, own in variants.items())
    first = next(iter(variants), None)
    compared = [] if run.record.reference in (first, None) else [f"reference={run.record.reference}"]
    return _run(run, words, f"variants={{{', '.join(named)}}}", *compared)


def _listed(override: str) -> str:
    return json.dumps(override, ensure_ascii=False) if set(override) & set("'\",{}[]\\ ") else override


def _run(run: Run, overrides: Sequence[str], *more: str) -> str:
    """Nothing where no command is known: of rows without a record, and of other people's videos."""
    known = run.record.variants is not None or run.record.told
    if run.record.job != "edit" or not known:
        return ""
    words = [each for each in overrides if _key(each) not in ONCE]
    return " ".join(filter(None, ["freemask run", typed(words, RUN), *map(shlex.quote, more)]))
