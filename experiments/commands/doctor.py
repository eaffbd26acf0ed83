"""`freemask doctor`: versions, devices, weights, what an edit would need, and the chosen data.

The exit code is 1 where something is wrong with the data."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.commands.doctor_data import lines, look_at
from experiments.commands.forecast import BYTES, MODELSCOPE, STABLE_DIFFUSION, as_record, forecast, shape_of
from experiments.config import choices
from experiments.runs import environment
from freemask.backbones.checkpoint import SHIPPED
from freemask.errors import UserError, nearest

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

GB = 1e9
EMBEDDED_FRAMES = 8
SIDES = ("frames", "height", "width")


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    report = {
        "versions": environment.versions(),
        "commit": environment.commit()[0],
        "devices": _devices(),
        "models": _models(),
        "metrics": _metrics(),
        "forecast": _forecast(cfg),
        "data": look_at(cfg.data),
    }
    if flags.get("json"):
        print(json.dumps(report, indent=2))
    else:
        _show(report)
    return 1 if report["data"]["wrong"] else 0


def _devices() -> dict[str, str]:
    import torch

    found = {"cpu": f"{os.cpu_count()} cores, {_memory_gb():.0f} GB of memory"}
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{facts.name}, {facts.total_memory / GB:.0f} GB"
    found["disk"] = f"{shutil.disk_usage('.').free / GB:.0f} GB free here"
    return found


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB


def _models() -> dict[str, dict[str, str]]:
    found = {}
    for option in choices.group("model"):
        path = choices.content("model", option.name).get("path")
        folder = _local(path) if path else None
        state = "needs no weights" if path is None else f"present: {folder}" if folder else "not here"
        if path in SHIPPED:
            state = "present, part of the package" if folder else "not here"
        todo = option.facts.get("get", "freemask train")
        found[option.name] = {"state": state, "licence": option.facts.get("licence", "")}
        if state == "not here":
            found[option.name]["get"] = todo
    return found


def _local(path: str) -> Path | None:
    """The folder of a model that is on this machine. Nothing is downloaded."""
    folder = SHIPPED.get(path) or Path(path).expanduser()
    if (folder / "model_index.json").is_file():
        return folder
    if folder.exists() or path.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(path, "model_index.json")
    return Path(index).parent if isinstance(index, str) else None


def _metrics() -> dict[str, dict[str, str]]:
    from evaluation.backbones.weights import KNOWN

    found = {}
    for name, weights in KNOWN.items():
        place = weights.look()
        entry = {"state": f"present: {place}" if place else "not here", "licence": weights.licence}
        found[name] = entry if place else entry | {"get": weights.get}
    return found


def _forecast(cfg: DictConfig) -> dict[str, object]:
    path = cfg.model.get("path")
    dtype = str(cfg.model.get("dtype", "float32"))
    if dtype not in BYTES:
        raise UserError(
            f"there is no dtype '{dtype}'", came=f"model.dtype={dtype}", expected=nearest(dtype, BYTES)
        )
    for key in SIDES:
        if cfg[key] is not None and (not isinstance(cfg[key], int) or cfg[key] < 1):
            raise UserError(f"{key} must be a whole number above 0", came=f"{key}={cfg[key]}")
    if path is None:
        return {"state": "this model has no weights on disk; it needs about 1 GB, the libraries themselves"}
    folder = _local(path)
    if folder is None and path in SHIPPED:
        return {"state": "the embedded weights are missing: freemask train, or reinstall"}
    image = "inflated2d" in str(cfg.model.get("_target_"))
    shape = shape_of(folder) if folder else STABLE_DIFFUSION if image else MODELSCOPE
    native = (EMBEDDED_FRAMES, *shape.native)
    asked = {key: cfg[key] or each for key, each in zip(SIDES, native, strict=True)}
    clip = (asked["frames"], asked["height"], asked["width"])
    steps = cfg.method.get("steps", 50)
    found = forecast(
        shape,
        clip,
        dtype=dtype,
        steps=steps,
        vae_batch=cfg.model.get("vae_batch", 8),
        streams=3 if cfg.method.get("features") == "recompute" else 2,
    )
    read = "read from its files" if folder else "of the published architecture"
    return as_record(found) | {"model": f"{path}, {dtype}, sizes {read}", "steps": steps}


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
