"""The codebooks of a run: what it began with is kept in its folder, and looked up there first ever after.

So what somebody installs or deletes meanwhile changes no run that has begun."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from experiments.config.identity import CONTENT, backbone_identity, base_identity, codebooks_in, folders_of
from experiments.runs.plan import Plan, Variant
from freemask.errors import UserError
from freemask.masks.bookshelf import AUTO, Found, books, find, given
from freemask.masks.codebook import SHIPPED, Codebook

BOOKS = "codebooks"  # in the folder of a run, or of each of its variants; named by their content
GIVEN = "given"  # those among them that were named by a path: `auto` never finds them


def looking_in(config: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The configuration, whose `auto` codebooks are looked for among those kept in that folder before all others."""
    made = dict(config)
    for way, node in codebooks_in(config.get("method"), ("method",)):
        own = str(place / BOOKS)
        if node[way[-1]] == AUTO and own not in folders_of(node):
            made = _set(made, way[:-1], {**node, "folders": [own, *folders_of(node)]})
    return made


def pinned(plan: Plan, run: Path) -> Plan:
    """The plan, each of whose variants looks into its own folder first."""
    made = [replace(each, config=looking_in(each.config, each.folder(run))) for each in plan.variants]
    return replace(plan, variants=made)


def keep(variant: Variant, place: Path) -> None:
    """Copies what the variant's masks look up, as its identity says, into the folder."""
    for way, node in codebooks_in(variant.config.get("method"), ("method",)):
        named, digest = node[way[-1]], str(_at(variant.identity.parts, way)).removeprefix(f"{CONTENT} ")
        copy = place / BOOKS / (f"{digest}.json" if named == AUTO else f"{GIVEN}/{digest}.json")
        for book in () if copy.exists() else _everywhere(node) if named == AUTO else [Codebook.read(named)]:
            if book.digest == digest:
                book.write(copy)
                break


def notes(config: Mapping[str, Any], place: Path) -> list[str]:
    """A line where a run goes on with its own codebook although another one would be found now."""
    said = []
    for way, node in codebooks_in(config.get("method"), ("method",)):
        for own in books(place / BOOKS) if node[way[-1]] == AUTO else ():
            now = _now(node, own)
            if now is None or now.book.digest != own.book.digest:
                other = "none would be found" if now is None else f"it would be another ({now.about})"
                said.append(f"codebook: as this run began ({own.about}); for a new run {other} now")
    return list(dict.fromkeys(said))


def refuse_strangers(config: Mapping[str, Any]) -> None:
    """A codebook that is named by its path must be of the model, which is not loaded for that."""
    for way, node in codebooks_in(config.get("method"), ("method",)):
        if node[way[-1]] != AUTO:
            model = config["model"]
            given(node[way[-1]], backbone_identity(model), base_identity(model))


def _everywhere(node: Mapping[str, Any]) -> Iterator[Codebook]:
    for folder in (*folders_of(node), SHIPPED):
        yield from (each.book for each in books(folder))


def _now(node: Mapping[str, Any], own: Found) -> Found | None:
    """What `auto` finds for the same model outside the run's folder."""
    try:
        folders = [each for each in folders_of(node) if Path(each) != own.path.parent]
        return find(own.book.backbone, folders)
    except UserError:
        return None


def _at(node: Any, way: Sequence[Any]) -> Any:
    return reduce(lambda inner, key: inner[key], way, node)


def _set(node: Any, way: Sequence[Any], value: Any) -> Any:
    """A copy in which one place holds another value."""
    if not way:
        return value
    made = list(node) if isinstance(node, list) else dict(node)
    made[way[0]] = _set(node[way[0]], way[1:], value)
    return made
