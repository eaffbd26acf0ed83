"""An edit in words: one block of named lines, the same in terminal, sheet and page, made of what its row knows so far.

Nothing here loads torch. `KNOWN` are the facts that a line tells; a reader shows the others as they are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KINDS = {
    "shape": "another object",
    "attribute": "the same object, another property",
    "background": "the same object, another place",
    "style": "another look for everything",
}
KNOWN = (
    "mask_layer",
    "mask_time",
    "mask_around",
    "mask_used",
    "mask_share",
    "mask_empty_frames",
    "codebook",
    "codebook_n",
    "codebook_folder",
    "keeps_object",
    "inversion_passes",
    "features",
    "features_gb",
    "attention",
    "oracle_iou",
    "tuning_kept",
    "tuning_steps",
    "tuning_seconds",
    "tuning_error_first",
    "tuning_error_last",
    "tuned_weights",
)
STAYS = ("style", "attribute")
SIZED = 4  # frames, channels, height, width


def explained(row: Mapping[str, Any]) -> dict[str, str]:
    """The lines by name, in reading order; what is not known yet, or says nothing, has none."""
    choices, facts = row.get("choices") or {}, row.get("facts") or {}
    lines = {
        "prompt": _prompt(row),
        "kind": _kind(row),
        "level": str(row.get("level") or ""),
        "words": "" if row.get("edits") else _words(row, facts),
        "edits": "; ".join(each_edit(row.get("edits") or ())),
        "method": _method(row, choices),
        "mask": _mask(choices, facts),
        "covers": _covers(facts),
        "codebook": _codebook(facts),
        "fusion": str(choices.get("fusion") or ""),
        "tuning": _tuning(choices, facts),
        "inversion": _inversion(facts),
        "clip": _clip(row),
        "model": _model(row, choices),
    }
    return {name: said for name, said in lines.items() if said}


def others(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts that no line tells, without those that only say no, none or nothing."""
    said = {name: value for name, value in facts.items() if name not in KNOWN}
    return {name: value for name, value in said.items() if value not in (None, False, 0, "")}


def asked(row: Mapping[str, Any]) -> str:
    """The two prompts."""
    return "  ->  ".join(str(row.get(key) or "(an empty prompt)") for key in ("source", "target"))


def around(facts: Mapping[str, Any]) -> str:
    """Of masks that go around the things before a background: where the edit may change. Otherwise empty."""
    things = str(facts.get("mask_around") or "").replace(", ", " and ")
    return f"all but {things}" if things else ""


def paired(words: Mapping[str, str]) -> str:
    return ", ".join(old if old == new else f"{old} -> {new or '(gone)'}" for old, new in words.items())


def each_edit(edits: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each of several edits of one clip, in words."""
    where = [f" in {Path(edit['region']).name}" if edit.get("region") else "" for edit in edits]
    return [
        f"{paired(edit['words']) or 'everything'} [{edit['kind']}]{place}"
        for edit, place in zip(edits, where, strict=True)
    ]


def _prompt(row: Mapping[str, Any]) -> str:
    """Who said what the clip shows, where nobody wrote it."""
    how = (row.get("guessed") or {}).get("source")
    return f"'{row.get('source')}', as said by {how}" if how else ""


def _kind(row: Mapping[str, Any]) -> str:
    kind, guessed = str(row.get("kind") or ""), (row.get("guessed") or {}).get("kind")
    means = KINDS.get(kind)
    if kind == "shape" and _gone(row):
        means = "an object is taken away"
    if not guessed:
        return f"{kind}: {means}" if means else kind
    rest = "|".join(each for each in KINDS if each != kind)
    return f"{kind}: {means} ({guessed}; otherwise: task={rest}, or `kind` in a list)"


def _gone(row: Mapping[str, Any]) -> bool:
    words = row.get("words") or {}
    return bool(words) and not any(words.values())


def _words(row: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    said = paired(row.get("words") or {})
    guessed = (row.get("guessed") or {}).get("words")
    notes = [guessed] if guessed and said else []
    unlike = row.get("kind") not in STAYS
    if said and facts.get("keeps_object") is unlike:  # only where the kind does not say it
        notes.append("the object stays" if facts["keeps_object"] else "the object may change")
    return f"{said} ({', '.join(notes)})" if notes else said


def _method(row: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    parts = [str(row.get("method") or "")]
    parts += [_many(row["steps"], "step")] if row.get("steps") else []
    parts += [f"guidance {row['guidance']:g}"] if row.get("guidance") is not None else []
    parts += [f"seed {row['seed']}"] if row.get("seed") is not None else []
    if (row.get("facts") or {}).get("attention"):
        parts.append(f"attention of the {row['facts']['attention']}")
    return ", ".join(filter(None, parts))


def _mask(choices: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    name, parts = str(choices.get("mask") or ""), []
    if facts.get("mask_used") is False:
        return f"{name}: not used in this edit" if name not in ("", "none") else ""
    parts += [around(facts)] if around(facts) else []
    if facts.get("mask_layer") is not None:
        parts.append(_of("layer", facts["mask_layer"]))
    if facts.get("mask_time") is not None:
        parts.append(_of("time", facts["mask_time"]))
    if (found := facts.get("oracle_iou")) is not None:
        parts.append(f"IoU {found:.3f} there" if isinstance(found, float) else f"IoU {found} there")
    return ": ".join(filter(None, [name, ", ".join(parts)]))


def _tuning(choices: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    name, steps = str(choices.get("tuning") or "none"), facts.get("tuning_steps")
    if name == "none" or "tuning_kept" not in facts:
        return ""
    parts = [_many(steps, "step")] if steps else []
    if facts.get("tuning_seconds") is not None:
        parts.append(
            f"{facts['tuning_seconds']:.0f} s" + (" (kept from before)" if facts["tuning_kept"] else "")
        )
    if facts.get("tuning_error_last") is not None:
        parts.append(f"error {facts['tuning_error_first']:.3g} -> {facts['tuning_error_last']:.3g}")
    return ": ".join(filter(None, [name, ", ".join(parts)]))


def _covers(facts: Mapping[str, Any]) -> str:
    share, empty = facts.get("mask_share"), facts.get("mask_empty_frames")
    if not isinstance(share, int | float):
        return ""
    return f"{share:.1%} of the clip" + (f", empty in {empty} of its frames" if empty else "")


def _codebook(facts: Mapping[str, Any]) -> str:
    name, n, folder = (facts.get(key) for key in ("codebook", "codebook_n", "codebook_folder"))
    parts = [name, f"in {folder}" if folder else "", f"measured on n = {n}" if name and n is not None else ""]
    return ", ".join(str(part) for part in parts if part)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)


def _of(what: str, found: Any) -> str:
    """One layer by its name, or `mean of 16 layers`; one time by its number, or `the time of each step`."""
    if found == "each":
        return f"the {what} of each step"
    if isinstance(found, float):  # times of some models are fractions
        found = f"{found:g}"
    return f"{found} {what}s" if str(found).startswith("mean of") else f"{what} {found}"


def _inversion(facts: Mapping[str, Any]) -> str:
    passes, kept = facts.get("inversion_passes"), facts.get("features_gb")
    if passes is None:
        return ""
    said = f"{_many(passes, 'call')} of the network" if passes else "kept from an earlier edit of this clip"
    return f"{said}; {kept} GB of features kept" if kept else said


def _clip(row: Mapping[str, Any]) -> str:
    name, size = str(row.get("clip") or ""), row.get("frames") or ()
    if len(size) != SIZED:
        return name
    count = _many(size[0], "frame")
    return f"{name}, {count} of {size[2]} x {size[3]} (height x width, as used)".removeprefix(", ")


def _model(row: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    name, identity = str(choices.get("model") or ""), str(row.get("model") or "")
    weights = identity.partition("-")[0][:8]  # of a model without files: random
    return f"{name} (weights {weights})" if name and identity else name or identity
