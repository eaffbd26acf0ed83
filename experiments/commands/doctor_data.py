"""The part of `freemask doctor` that looks at the chosen data: everything that is wrong, and where to get it."""

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from experiments.config import choices
from experiments.config.build import build, check_arguments
from experiments.runs.progress import reporting
from freemask.data.audit import Audit, Finding
from freemask.errors import UserError
from freemask.types import Progress


def look_at(data: DictConfig) -> dict[str, Any]:
    """`state` in one line, `wrong` and `notes` one by one, `get` where the data are to be had."""
    target = str(data.get("_target_", ""))
    option = next(
        (
            each
            for each in choices.group("data")
            if choices.content("data", each.name).get("_target_") == target
        ),
        None,
    )
    get = {"get": option.facts["get"]} if option and "get" in option.facts else {}
    missing = [f"{key}=..." for key in sorted(OmegaConf.missing_keys(data))]
    needs = Audit(findings=[Finding("data", f"needs {', '.join(missing)}")])
    found = needs if missing else _audit(target, data)
    return {"source": option.name if option else target, **_told(found)} | ({} if found.fine else get)


def _audit(target: str, data: DictConfig) -> Audit:
    values = OmegaConf.to_container(data, resolve=True)
    assert isinstance(values, dict)
    plain = {str(key): value for key, value in values.items()}
    audit = Audit()
    try:
        with reporting(1, "data") as bars:
            inspect = _inspector(target, plain, bars.stage)
            if inspect is not None:
                return inspect
        audit.tasks = build(plain, "data").tasks()
    except (UserError, OSError) as error:
        audit.refused(plain.get("root", "data"), error)
    return audit


def _inspector(target: str, plain: Mapping[str, Any], progress: Progress) -> Audit | None:
    """The inspection of a source that has one; its arguments are checked as those of the source."""
    from freemask.data.audit_davis import audit_davis
    from freemask.data.audit_files import audit_files
    from freemask.data.davis import Davis
    from freemask.data.files import Files

    source = get_object(target)
    if not (isinstance(source, type) and issubclass(source, Files | Davis)):
        return None
    arguments = {key: build(value, f"data.{key}") for key, value in plain.items() if key != "_target_"}
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
