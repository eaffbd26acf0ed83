"""What the measurements of `freemask bench what=fusion` say: ratios, growth, a Markdown file and a plot."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cost.job import SETTING
from experiments.cost.text import headline, markdown
from experiments.figures import bench as figure
from experiments.runs.rows import Row, write_text

Record = Mapping[str, Any]
BY_STEP = ("word heat", "latents")  # what every way of fusing keeps of each step


def write(path: Path, name: str, data: dict[str, Any]) -> str:
    """Numbers, table and plot beside each other; the tables, and where the files are."""
    data["summary"] = {**summary(data), "official": data["about"].pop("official")}
    names = {"numbers": path, "table": path.with_suffix(".md"), "plot": path.with_suffix(".png")}
    write_text(path, json.dumps(data, indent=1) + "\n")
    said = markdown(name, data)
    write_text(names["table"], f"{said}\n\n![Time and peak memory]({names['plot'].name})\n")
    figure.draw(names["plot"], data, headline(name, data))
    return "\n".join([said, "", *(f"{each:<8} {place}" for each, place in names.items())])


def data_of(rows: Sequence[Row], parts: Record) -> dict[str, Any]:
    """Every measurement by the name of its cell, and what it was measured on."""
    cells, about = {}, {}
    for row in rows:
        if row["task"] == SETTING:
            about = {**row.get("found", {}), "model": row.get("choices", {}).get("model")}
            continue
        what, mode, frames, _, steps, *_ = row["task"].split(" ")
        cell = {"what": what, "mode": mode, "frames": int(frames), "steps": int(steps)}
        failed = {"failed": row.get("message", "")} if row["status"] != "done" else {}
        cells[row["task"]] = {**cell, **row.get("found", {}), **failed}
    return {"what": "fusion", "parts": dict(parts), "about": about, "cells": cells}


def summary(data: Record) -> dict[str, Any]:
    memory = memory_key(data)
    return {"table": table(data), "memory": memory, "growth": growth(data, memory)}


def memory_key(data: Record) -> str:
    """The memory that is short: the GPU's where there is one."""
    return "gpu_mb" if data["about"]["gpu"] else "rss_mb"


def table(data: Record) -> list[dict[str, Any]]:
    """A line per mode: the best time, the peak, what is kept; each measured number also by that of plain."""
    options = data["parts"]["options"]
    at = {"frames": options["at_frames"], "steps": options["at_steps"]}
    lines = []
    for mode in dict.fromkeys(options["modes"]):
        line: dict[str, Any] = {"mode": mode}
        times = cells(data, "time", mode=mode, **at)
        for key in ("seconds", "cpu_seconds") if times else ():
            line[key] = min(each[key] for each in times)
        for found in cells(data, "memory", mode=mode, **at):
            line |= {key: found[key] for key in ("rss_mb", "gpu_mb") if key in found}
        for found in cells(data, "kept", mode=mode, **at):
            line |= {"kept_mb": found["mb"], "difference": found["difference"]}
        lines.append(line)
    plain = next(line for line in lines if line["mode"] == "plain")
    for line in lines:
        both = [key for key in ("seconds", "cpu_seconds", "rss_mb", "gpu_mb") if key in line and key in plain]
        line["ratios"] = {key: line[key] / plain[key] for key in both if plain[key] > 0}
    return lines


def growth(data: Record, memory: str) -> dict[str, list[dict[str, Any]]]:
    """Straight lines through the peaks: MB per frame at each number of steps, MB per step at each of frames."""
    options = data["parts"]["options"]
    frames, steps = (sorted(set(options[key])) for key in ("frames", "steps"))
    found: dict[str, list[dict[str, Any]]] = {"per_frame": [], "per_step": []}
    for mode in dict.fromkeys(options["grid_modes"]):
        for n in steps:
            points = [(c["frames"], c[memory]) for c in cells(data, "memory", mode=mode, steps=n)]
            found["per_frame"] += [{"mode": mode, "steps": n, **_line(points)}] if len(points) > 1 else []
        for f in frames:
            points = [(c["steps"], c[memory]) for c in cells(data, "memory", mode=mode, frames=f)]
            if len(points) > 1:
                found["per_step"].append(
                    {"mode": mode, "frames": f, **_line(points), **_by_step(data, mode, f)}
                )
    return found


def cells(data: Record, what: str, **asked: Any) -> list[Record]:
    """The measurements of a kind that succeeded, of these modes, frames or steps."""
    wanted = {"what": what, **asked}
    return [
        found
        for found in data["cells"].values()
        if "failed" not in found and all(found[key] == value for key, value in wanted.items())
    ]


def _line(points: Sequence[tuple[int, float]]) -> dict[str, float]:
    """The least-squares line, and how far the worst point lies from it."""
    x, y = (np.array(each, dtype=float) for each in zip(*sorted(points), strict=True))
    slope, start = np.polyfit(x, y, 1)
    return {
        "slope_mb": float(slope),
        "at_zero_mb": float(start),
        "off_mb": float(np.abs(slope * x + start - y).max()),
    }


def _by_step(data: Record, mode: str, frames: int) -> dict[str, float]:
    """What a step adds to what is kept, from the sizes of the edit in the table, scaled to this many frames."""
    kept = cells(data, "kept", mode=mode)
    if not kept:
        return {}
    one, scale = kept[0], frames / kept[0]["frames"] / kept[0]["steps"]
    return {
        "kept_mb": scale * sum(one["mb"][name] for name in BY_STEP),
        "features_mb": scale * one["mb"]["features"],
    }
