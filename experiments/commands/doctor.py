"""`freemask doctor`: versions, devices, weights, what an edit would need, and the chosen data.

With `tasks=` what was understood of a task list. The exit code is 1 where something is wrong with the data, 2 where a
list has bad lines."""

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.doctor import tasks as listing
from experiments.doctor.data import lines, look_at
from experiments.doctor.forecast import GB, forecast
from experiments.doctor.weights import models, networks
from experiments.runs import environment
from freemask.data.tasks import looked_over, refuse

VERB = Verb(
    "versions, devices, weights, data, and what an edit would need",
    paths=("tasks", *PATHS),
    json=True,
    lacking=True,
    examples=(
        "freemask doctor",
        "freemask doctor model=zeroscope frames=24 height=320 width=576",
        "freemask doctor data=davis data.root=DAVIS",
        "freemask doctor data=pexels data.manifest=pexels20 --json",
        "freemask doctor tasks=tasks.yaml",
        "freemask doctor tasks=tasks.yaml data=folder data.root=clips",
    ),
    notes=(
        "tasks=FILE tells what is understood of a task list, a line for each task, and nothing else; with data= its",
        "clips are looked up there; the exit code is 2 if a line is bad.",
        "data=... is checked file by file: lists, counts, sizes, masks; the exit code is 1 if one is wrong.",
    ),
)


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    if cfg.tasks is not None:
        return _list(cfg, flags)
    report = {
        "versions": environment.versions(),
        "commit": environment.commit()[0],
        "devices": _devices(),
        "models": models(),
        "metrics": networks(),
        "forecast": forecast(cfg),
        "data": look_at(cfg.data, flags["choices"].get("data")),
    }
    if flags.get("json"):
        print(json.dumps(report, indent=2))
    else:
        _show(report)
    return 1 if report["data"]["wrong"] else 0


def _list(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    path, chosen = str(cfg.tasks), flags["choices"].get("data")
    listed, wrong = looked_over(path, manifest=chosen == "pexels")
    given = any(each.lstrip("+").startswith(("data=", "data.")) for each in flags.get("overrides", ()))
    data = look_at(listing.listed_in(cfg.data, chosen, path), chosen) if given and not wrong else None
    if flags.get("json"):
        said = {"list": path, "tasks": [listing.told(task) for task in listed.tasks], "data": data}
        print(json.dumps({**said, "wrong": [{"line": line, "what": what} for line, what in wrong]}, indent=2))
    else:
        print("\n".join([*listing.lines(listed.tasks), *(lines(data) if data else ())]), flush=True)
        refuse(path, wrong)
    return 2 if wrong else int(bool(data and data["wrong"]))


def _devices() -> dict[str, str]:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    found = {"cpu": f"{os.cpu_count()} cores, {memory:.0f} GB of memory"}
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{facts.name}, {facts.total_memory / GB:.0f} GB"
    return found | {"disk": f"{shutil.disk_usage('.').free / GB:.0f} GB free here"}


def _show(report: Mapping[str, Any]) -> None:
    print("versions   " + ", ".join(f"{name} {found}" for name, found in report["versions"].items()))
    print(f"commit     {report['commit']}")
    for name, said in report["devices"].items():
        print(f"{name:<10} {said}")
    for part in ("models", "metrics"):
        print(f"\n{part}" + (" (networks that metrics use)" if part == "metrics" else ""))
        for name, entry in report[part].items():
            print(f"  {name:<12} {entry['state']}; licence {entry['licence']}")
            if "get" in entry:
                print(f"  {'':<12} get: {entry['get']}")
    print("\nforecast of one edit")
    for name, value in report["forecast"].items():
        print(f"  {name:<15} {f'{value:.2f}' if isinstance(value, float) else value}")
    print("\n" + "\n".join(lines(report["data"])))
