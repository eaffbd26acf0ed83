"""`freemask doctor`: versions, devices, weights, what an edit would need, and the chosen data.

The exit code is 1 where something is wrong with the data."""

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.doctor.data import lines, look_at
from experiments.doctor.forecast import GB, forecast
from experiments.doctor.weights import models, networks
from experiments.runs import environment

VERB = Verb(
    "versions, devices, weights, data, and what an edit would need",
    paths=PATHS,
    json=True,
    examples=(
        "freemask doctor",
        "freemask doctor model=zeroscope frames=24 height=320 width=576",
        "freemask doctor data=davis data.root=DAVIS",
        "freemask doctor data=pexels data.manifest=pexels20 --json",
    ),
    keys=(
        "frames= height= width=   the clip of the forecast",
        "model= method=           what is looked at",
        "data=                    checked file by file: lists, counts, sizes, masks; exit code 1 if one is wrong",
    ),
)


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
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
