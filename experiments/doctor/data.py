"""The part of `freemask doctor` that looks at the chosen data: everything that is wrong, and where to get it."""

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from experiments.config import choices
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.fits import check_arguments
from experiments.runs.progress import reporting
from freemask.data.audit import Audit, Finding
from freemask.errors import UserError
from freemask.types import Progress


def look_at(data: DictConfig, chosen: str | None) -> dict[str, Any]:
    """`state` in one line, `wrong` and `notes` one by one, `get` where the data of that option are to be had."""
    facts = choices.option("data", chosen).facts if chosen else {}
    missing = [f"{key}=..." for key in sorted(OmegaConf.missing_keys(data))]
    needs = Audit(findings=[Finding("data", f"needs {', '.join(missing)}")])
    found = needs if missing else _audit(plain(data))
    get = {"get": facts["get"]} if "get" in facts and not found.fine else {}
    return {"source": chosen or str(data.get("_target_", "")), **_told(found), **get}


def _audit(data: Mapping[str, Any]) -> Audit:
    audit = Audit()
    try:
        with reporting(1, "data") as bars:
            inspected = _inspected(data, bars.stage)
            if inspected is not None:
                return inspected
        audit.tasks = build(data, "data").tasks()
    except (UserError, OSError) as error:
        audit.refused(data.get("root", "data"), error)
    return audit


def _inspected(data: Mapping[str, Any], progress: Progress) -> Audit | None:
    """The inspection of a source that has one; its arguments are checked as those of the source."""
    from freemask.data.audit_davis import audit_davis
    from freemask.data.audit_files import audit_files
    from freemask.data.davis import Davis
    from freemask.data.files import Files

    source = get_object(str(data.get("_target_", "")))
    if not (isinstance(source, type) and issubclass(source, Files | Davis)):
        return None
    arguments = {key: build(value, f"data.{key}") for key, value in data.items() if key != "_target_"}
    check_arguments(source, arguments, "data")
    if issubclass(source, Davis):
        return audit_davis(**arguments, progress=progress)
    return audit_files(source, arguments, progress)


def _told(audit: Audit) -> dict[str, Any]:
    wrong = [each for each in audit.findings if each.grave]
    kinds = ", ".join(sorted({task.kind for task in audit.tasks}))
    clips = len({task.clip for task in audit.tasks})
    state = f"{len(audit.tasks)} tasks ({kinds}) on {clips} clips" if audit.tasks else "no tasks"
    if wrong:
        state += f"; {len(wrong)} thing{'s are' if len(wrong) > 1 else ' is'} wrong"
    return {
        "state": state,
        "tasks": len(audit.tasks),
        "clips": clips,
        "wrong": [_entry(each) for each in wrong],
        "notes": [_entry(each) for each in audit.findings if not each.grave],
    }


def _entry(finding: Finding) -> dict[str, str]:
    return {"where": finding.where, "what": finding.wrong} | ({"do": finding.todo} if finding.todo else {})


def lines(found: Mapping[str, Any]) -> list[str]:
    """The same for a reader."""
    said = [f"data         {found['source']}: {found['state']}"]
    for title in ("wrong", "notes"):
        for entry in found[title]:
            said.append(f"  {title.removesuffix('s'):<10} {entry['where']}: {entry['what']}")
            said += [f"  {'':<10} do next: {entry['do']}"] if "do" in entry else []
    return said + ([f"  {'get':<10} {found['get']}"] if "get" in found else [])
