"""The page of the embedded models' report: tables in HTML, clips and maps as PNG beside it."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch.nn.functional import pad

from experiments.jobs.pictures import beside
from freemask.data.write import to_bytes

COLUMNS, HEIGHT = 3, 192


def sheet(path: Path, cells: Mapping[str, Sequence[np.ndarray]], *, columns: int = COLUMNS) -> None:
    """Frames (`3 h w`, 8 bit) side by side, each group under its words, in rows."""
    clips = {
        words: torch.from_numpy(np.concatenate(frames, -1))[None] / 255 for words, frames in cells.items()
    }
    names = list(clips)
    rows = [
        beside({words: clips[words] for words in names[start : start + columns]}, HEIGHT)
        for start in range(0, len(names), columns)
    ]
    wide = max(row.shape[-1] for row in rows)
    whole = torch.cat([pad(row, (0, wide - row.shape[-1]), value=1.0) for row in rows], dim=-2)
    Image.fromarray(to_bytes(whole)[0]).quantize(256).save(path, optimize=True)  # a third of the size


def _generated(row: dict) -> tuple[str, list[np.ndarray]]:
    marks = "".join(f"{what[0].upper()}{'+' if all(v) else '-'} " for what, v in row["verdicts"].items())
    shown = sorted({0, len(row["frames"]) // 2, len(row["frames"]) - 1})
    return marks + row["caption"], [row["frames"][place] for place in shown]


def _inverted(row: dict) -> tuple[str, list[np.ndarray]]:
    size = row["source"].shape[2], row["source"].shape[1]
    words = f"{row['psnr']:.1f} dB, IoU {row['ious'].max():.2f}: {row['caption']}"
    return words, [row["source"], row["back"], _heat(row["map"], size)]


def _heat(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    even = (values - values.min()) / (np.ptp(values) + 1e-12)
    large = np.asarray(Image.fromarray(even.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    return (np.stack([large, large**2, 1 - large]) * 255).clip(0, 255).astype(np.uint8)


def _curves(inverted: list[dict]) -> Figure:
    mean = np.stack([row["ious"] for row in inverted]).mean(0)
    sites, times = inverted[0]["sites"], inverted[0]["times"]
    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    shown = axes[0].imshow(mean, aspect="auto", extent=(times[0], times[-1], len(sites) - 0.5, -0.5))
    axes[0].set(title="IoU of the word's map", xlabel="time t", ylabel="text layer")
    figure.colorbar(shown, ax=axes[0])
    axes[1].plot(mean.mean(1), marker="o")
    axes[1].set(title="by layer, mean over time", xlabel="text layer, in the order of the network")
    axes[2].plot(times, mean.mean(0))
    axes[2].set(title="by time, mean over layers", xlabel="time t")
    return figure


def _table(title: str, groups: dict) -> str:
    rows = []
    for name, values in groups.items():
        for value, scores in values.items():
            cells = "".join(f"<td>{scores[w]:.2f}</td>" for w in ("class", "color", "background"))
            rows.append(f"<tr><td>{name}</td><td>{html.escape(value)}</td><td>{scores['n']}</td>{cells}</tr>")
    head = "<tr><th></th><th></th><th>n</th><th>class</th><th>colour</th><th>background</th></tr>"
    return f"<h2>{title}</h2><table>{head}{''.join(rows)}</table>"


def _pictures(folder: Path, rows: dict[str, list[dict]]) -> str:
    """All that is to be looked at, under its words."""
    pictures = {
        "generated": "Clips made from captions: first, middle, last frame; the judge on Class, Colour, Background",
        "pictures": "Pictures that the image network makes from captions",
        "inverted": "Source, inverted and sampled back, the word's best map",
        "maps": "Where and when the word's map is sharp",
        "dit_generated": "Clips that the transformer makes from the same captions",
        "dit_inverted": "The same clips inverted and sampled back by the transformer",
        "dit_maps": "Where and when the transformer's map of the word is sharp",
    }
    found = []
    for kind, words in pictures.items():
        source = kind.replace("maps", "inverted")
        if source not in rows:
            continue
        path = folder / f"embedded-{kind.replace('_', '-')}.png"
        if source != kind:
            _curves(rows[source]).savefig(path, dpi=90)
        else:
            cell = _inverted if kind.endswith("inverted") else _generated
            sheet(path, dict(map(cell, rows[kind])), columns=6 if kind == "pictures" else COLUMNS)
        found.append(f'<h2>{words}</h2><img src="{path.name}" alt="{kind}">')
    return "\n".join(found)


def _line(name: str, value: float, bar: dict | None) -> str:
    met = "" if bar is None else "met" if bar["met"] else "missed"
    cells = [name, value, "" if bar is None else bar["bar"], met]
    return f"<tr class='{met}'>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def write_page(folder: Path, document: dict, rows: dict[str, list[dict]]) -> None:
    named = [*document["bars"], *(name for name in document if name.startswith("dit_"))]
    bars = "".join(_line(name, document[name], document["bars"].get(name)) for name in named)
    transformer = document.get("dit")
    beside = _table("Generated clips, transformer", transformer["generated_by"]) if transformer else ""
    page = f"""<!doctype html><meta charset="utf-8"><title>The embedded models, measured</title>
<style>body{{font:15px sans-serif;max-width:1200px;margin:2em auto}}img{{max-width:100%}}
td,th{{padding:2px 12px;text-align:left}}
.missed{{color:#b00}}.side{{display:flex;gap:3em;flex-wrap:wrap}}</style>
<h1>The embedded models, measured on held-out seeds</h1>
<p>Commit {html.escape(str(document["commit"]))}; seeds {html.escape(str(document["seeds"]))}; settings
{html.escape(str(document["settings"]))}. An untrained network's best map scores {document["mask_iou_untrained"]}.</p>
<table><tr><th>figure</th><th>measured</th><th>bar</th><th></th></tr>{bars}</table>
{_pictures(folder, rows)}
<div class="side"><div>{_table("Generated clips", document["generated_by"])}</div>
<div>{beside}</div>
<div>{_table("Generated pictures", document["pictures_by"])}</div>
<div>{_table("Real held-out clips", document["real_by"])}</div></div>
"""
    (folder / "embedded.html").write_text(page)
