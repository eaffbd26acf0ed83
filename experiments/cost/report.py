"""What the measurements of `freemask bench` say: ratios, growth, tables and a plot."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.tables import render
from evaluation.tables.grid import DASH, Block, Grid, Part, Shown, lines_of
from experiments.cost import plot
from experiments.cost.job import SETTING
from experiments.cost.machine import numbers_of
from experiments.runs.plan import Item
from experiments.runs.rows import Row, write_text
from freemask.errors import UserError

Record = Mapping[str, Any]
KEPT = ("features", "word heat", "latents")
HEADS = {"seconds": "seconds", "cpu_seconds": "CPU s", "rss_mb": "peak RSS MB", "gpu_mb": "peak GPU MB"}
WIDTH = 118
FUSED = (
    "plain: the same edit without fusion; recompute runs the source beside it, cache_* keep its queries and keys; "
    "free is FlowEdit in all steps, with the same masks and no inversion."
)
WHOLE = (
    "plain: DDIM inversion and sampling with as many steps and the same guidance; edit: the method as it is; bare: the "
    "same without what it is about."
)
OFF = "off recompute: the largest difference of a pixel (0 to 1) from the edit of recompute."


def told(items: Sequence[Item], rows: Sequence[Row]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was measured on, and every measurement by its name."""
    by = {row["task"]: row for row in rows}
    setting, found = by[SETTING], {}
    if setting["status"] != "done":
        wrong = "it cannot be told what is measured"
        raise UserError(wrong, came=setting.get("message", ""), todo="the same command tries again")
    for item in items:
        row = by[item.id]
        failed = {} if row["status"] == "done" else {"failed": row.get("message", "")}
        found[item.id] = {**item.data, **row.get("found", {}), **failed}
    chosen = {key: setting.get("choices", {}).get(key) for key in ("model", "method")}
    return {**setting.get("found", {}), **chosen}, found


def data_of(items: Sequence[Item], rows: Sequence[Row], parts: Record) -> dict[str, Any]:
    """Every measurement, what it was measured on, and what they say together."""
    about, found = told(items, rows)
    official = about.pop("official")
    memory = "gpu_mb" if about["gpu"] else "rss_mb"  # the memory that is short
    data = {"parts": dict(parts), "about": about, "cells": found}
    summary = {"table": _table(data), "memory": memory, "growth": growth(data, memory), "official": official}
    return {**data, "summary": summary}


def write(path: Path, name: str, data: Record) -> str:
    """Numbers, tables and plot beside each other; what the screen shows of them."""
    table, picture, shown = path.with_suffix(".md"), path.with_suffix(".png"), grids(name, data)
    write_text(path, json.dumps(data, indent=1) + "\n")
    tables = [render.markdown(grid, min(place + 1, 2)) for place, grid in enumerate(shown)]
    write_text(table, "\n\n".join([*tables, f"![Time and peak memory]({picture.name})"]) + "\n")
    plot.draw(picture, data, _headline(name, data))
    texts = [render.text(grid, WIDTH) for grid in shown]
    return "\n\n".join([*texts, f"files: {path}, {table}, {picture}"])


def _table(data: Record) -> list[dict[str, Any]]:
    """A line per mode: the best time, the peak, what is kept; each measured number also by that of plain."""
    options = data["parts"]["options"]
    at = {"frames": options["at_frames"], "steps": options["at_steps"]}
    lines = {}
    for mode in dict.fromkeys(options["modes"]):
        line: dict[str, Any] = {"mode": mode}
        for found in [*_cells(data, "time", mode=mode, **at), *_cells(data, "memory", mode=mode, **at)]:
            line |= {key: min(found[key], line.get(key, found[key])) for key in HEADS if key in found}
        for found in _cells(data, "kept", mode=mode, **at):
            line |= {"kept_mb": found["mb"], "difference": found["difference"]}
        lines[mode] = line
    plain = lines["plain"]
    known = [key for key in HEADS if plain.get(key, 0) > 0]
    for line in lines.values():
        line["ratios"] = {key: line[key] / plain[key] for key in known if key in line}
    return list(lines.values())


def growth(data: Record, memory: str) -> dict[str, list[dict[str, Any]]]:
    """Straight lines through the peaks: MB per frame at each number of steps, MB per step at each of frames."""
    options = data["parts"]["options"]
    found: dict[str, list[dict[str, Any]]] = {"per_frame": [], "per_step": []}
    for mode in dict.fromkeys(options["grid_modes"]):
        for along, other in (("frames", "steps"), ("steps", "frames")):
            for value in sorted(set(options[other])):
                cells = _cells(data, "memory", mode=mode, **{other: value})
                points = [(cell[along], cell[memory]) for cell in cells]
                if len(points) > 1:
                    found[f"per_{along[:-1]}"].append({"mode": mode, other: value, **_line(points)})
    return found


def _cells(data: Record, what: str, **asked: Any) -> list[Record]:
    """The measurements of a kind that succeeded, of these modes, frames or steps."""
    wanted = {"what": what, **asked}.items()
    return [each for each in data["cells"].values() if "failed" not in each and wanted <= each.items()]


def _line(points: Sequence[tuple[int, float]]) -> dict[str, float]:
    """The least-squares line, and how far the worst point lies from it."""
    x, y = (np.array(each, dtype=float) for each in zip(*sorted(points), strict=True))
    slope, start = np.polyfit(x, y, 1)
    off = np.abs(slope * x + start - y).max()
    return {"slope_mb": float(slope), "at_zero_mb": float(start), "off_mb": float(off)}


def grids(name: str, data: Record) -> list[Grid]:
    peaks = [_peaks(data)] if data["parts"]["options"]["grid_modes"] else []
    official = data["summary"]["official"]
    return [_edits(name, data), *peaks, *([] if official is None else [_official(official)])]


def _edits(name: str, data: Record) -> Grid:
    options, about = data["parts"]["options"], data["about"]
    keys = [key for key in HEADS if key != "gpu_mb" or about["gpu"]]
    lines = {}
    for line in data["summary"]["table"]:
        cells = [number(line.get(key), line["ratios"].get(key)) for key in keys]
        if about["fusion"]:
            cells += [number(line.get("kept_mb", {}).get(part)) for part in KEPT]
            cells += [f"{line['difference']:.1e}" if "difference" in line else DASH]
        lines[line["mode"]] = [Shown(cell) for cell in cells]
    fusion = ", ".join(f"{part} {mode}" for part, mode in about["fusion"].items())
    named = f"Fusion: {fusion}." if fusion else f"Method: {about['method']}."
    notes = [
        f"{about['model']} on {about['cpu']}, {about['cpu_count']} processors, torch {about['versions']['torch']}, "
        f"commit {about['commit'][:12]}{' with changes' if about['dirty'] else ''}.",
        f"A moving pattern, edited as {options['kind']}: '{options['source']}' to '{options['target']}'. "
        f"{named} Masks: {about['masks']}. Guidance {about['guidance']}.",
        f"{FUSED if fusion else WHOLE} In brackets: divided by plain.",
        f"Times: the best of {options['repeats']}, the modes in turn, after an edit that does not count.",
        "Peaks: on top of the loaded model and its clip, in MB of 10^6 bytes; RSS is resident memory. glibc returns "
        "freed blocks at once while memory is measured.",
        *([OFF] if fusion else []),
        *about["limits"],
    ]
    failed = [
        f"{task}: {' '.join(each['failed'].split())}"
        for task, each in data["cells"].items()
        if "failed" in each
    ]
    head = [HEADS[key] for key in keys]
    head += [*(f"{part} MB" for part in KEPT), "off recompute"] if fusion else []
    title = f"What {'fusion' if fusion else about['method']} costs: {_headline(name, data)}"
    return Grid(title, head, lines_of(lines), notes, failed, corner="mode")


def _peaks(data: Record) -> Grid:
    """Over frames downwards and steps to the right; at the end of each line its slope."""
    options, memory = data["parts"]["options"], data["summary"]["memory"]
    every, steps = sorted(set(options["frames"])), sorted(set(options["steps"]))
    peaks = {(c["mode"], c["frames"], c["steps"]): c[memory] for c in _cells(data, "memory")}
    slopes = data["summary"]["growth"]
    by_frame = {(each["mode"], each["steps"]): each["slope_mb"] for each in slopes["per_frame"]}
    by_step = {(each["mode"], each["frames"]): each["slope_mb"] for each in slopes["per_step"]}
    blocks = []
    for mode in dict.fromkeys(options["grid_modes"]):
        parts = [
            part_of(f"{f} frames", [*(peaks.get((mode, f, n)) for n in steps), by_step.get((mode, f))])
            for f in every
        ]
        slope = part_of("MB per frame", [*(by_frame.get((mode, n)) for n in steps), None])
        blocks.append(Block(mode, [*parts, slope]))
    title = f"Peak {'GPU' if memory == 'gpu_mb' else 'resident'} memory above the loaded model, MB"
    notes = ["Per frame and per step: the slopes of straight lines through these peaks."]
    return Grid(title, [*(f"{n} steps" for n in steps), "MB per step"], blocks, notes)


def _official(found: Record) -> Grid:
    blocks = [
        Block(f"{n} frames", [part_of("", [sizes["self"], sizes["cross"], sum(sizes.values())])])
        for n, sizes in found["mb_by_frames"].items()
    ]
    note = (
        f"Self and cross attention of layers with at most 32 x 32 queries, {found['bytes_each']} bytes each."
    )
    title = f"Computed, not measured: all attention maps of {found['steps']} steps, as the official code keeps them, MB"
    return Grid(title, ["self", "cross", "together"], blocks, [note])


def part_of(label: str, numbers: Sequence[float | None]) -> Part:
    return Part(label, [Shown(number(each)) for each in numbers])


def _headline(name: str, data: Record) -> str:
    """Model, clip and machine on one line."""
    options, about = data["parts"]["options"], data["about"]
    height, width = about["size"]
    clip = f"{options['at_frames']} frames of {width} x {height}, {options['at_steps']} steps"
    threads = (
        "" if about["gpu"] else f", {about['torch_threads']} thread{'s' * (about['torch_threads'] != 1)}"
    )
    return f"{name}, {clip}, {numbers_of(about)}, on {about['device']}{threads}"


def number(value: float | None, ratio: float | None = None) -> str:
    """Three digits that say something."""
    if value is None:
        return DASH
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:#.3g}"
    return shown if ratio is None else f"{shown} ({ratio:.2f})"
