"""The page of the embedded models' report: tables in HTML, clips and maps as PNG beside it."""

import html
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SCALE = 2


def _label(text: str, width: int) -> np.ndarray:
    strip = Image.new("RGB", (width, 26), "white")
    pen = ImageDraw.Draw(strip)
    half = len(text) // 2
    cut = text.find(" ", half) if len(text) > 24 else -1
    lines = [text] if cut < 0 else [text[:cut], text[cut + 1 :]]
    for row, line in enumerate(lines):
        pen.text((2, row * 12), line, fill="black")
    return np.asarray(strip)


def _grid(cells: list[np.ndarray], columns: int) -> Image.Image:
    while len(cells) % columns:
        cells.append(np.full_like(cells[0], 255))
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    return Image.fromarray(np.concatenate(rows, axis=0))


def _picture(frames: list[np.ndarray], text: str) -> np.ndarray:
    """Frames (`3 h w`, 8 bit) side by side, enlarged, with a caption above."""
    flat = np.concatenate([f.transpose(1, 2, 0) for f in frames], axis=1)
    large = flat.repeat(SCALE, 0).repeat(SCALE, 1)
    edge = np.full((large.shape[0], 6, 3), 255, dtype=np.uint8)
    body = np.concatenate([large, edge], axis=1)
    return np.concatenate([_label(text, body.shape[1]), body], axis=0)


def sheet_generated(rows: list[dict]) -> Image.Image:
    def marks(row: dict) -> str:
        return "".join(f" {w[0].upper()}{'+' if all(v) else '-'}" for w, v in row["verdicts"].items())

    cells = [
        _picture([r["frames"][0], r["frames"][4], r["frames"][-1]], r["caption"] + marks(r)) for r in rows
    ]
    return _grid(cells, 4)


def _heat(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    even = (values - values.min()) / (np.ptp(values) + 1e-12)
    large = np.asarray(Image.fromarray(even.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    return (np.stack([large, large**2, 1 - large]) * 255).clip(0, 255).astype(np.uint8)


def sheet_inverted(rows: list[dict]) -> Image.Image:
    cells = []
    for row in rows:
        size = row["source"].shape[2], row["source"].shape[1]
        text = f"{row['caption']} {row['psnr']:.1f} dB, IoU {row['ious'].max():.2f}"
        cells.append(_picture([row["source"], row["back"], _heat(row["map"], size)], text))
    return _grid(cells, 4)


def sheet_curves(mean: np.ndarray, sites: list[str], times: list[int]) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    shown = axes[0].imshow(mean, aspect="auto", extent=(times[0], times[-1], len(sites) - 0.5, -0.5))
    axes[0].set(title="IoU of the word's map", xlabel="time t", ylabel="text layer")
    figure.colorbar(shown, ax=axes[0])
    axes[1].plot(mean.mean(1), marker="o")
    axes[1].set(title="by layer, mean over time", xlabel="text layer (down, mid, up)")
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


def write_page(
    folder: Path, document: dict, generated: list[dict], inverted: list[dict], mean: np.ndarray
) -> Path:
    sheet_generated(generated).save(folder / "embedded-generated.png", optimize=True)
    sheet_inverted(inverted).save(folder / "embedded-inverted.png", optimize=True)
    sheet_curves(mean, inverted[0]["sites"], inverted[0]["times"]).savefig(
        folder / "embedded-maps.png", dpi=90
    )
    bars = "".join(
        f"<tr class={'yes' if bar['met'] else 'no'}><td>{name}</td><td>{document[name]}</td><td>{bar['bar']}</td>"
        f"<td>{'met' if bar['met'] else 'missed'}</td></tr>"
        for name, bar in document["bars"].items()
    )
    page = f"""<!doctype html><meta charset="utf-8"><title>The embedded models, measured</title>
<style>body{{font:15px sans-serif;max-width:1200px;margin:2em auto}}img{{max-width:100%}}
td,th{{padding:2px 12px;text-align:left}}
.no{{color:#b00}}.side{{display:flex;gap:3em;flex-wrap:wrap}}</style>
<h1>The embedded models, measured on held-out seeds</h1>
<p>Commit {html.escape(str(document["commit"]))}; seeds {html.escape(str(document["seeds"]))}; settings
{html.escape(str(document["settings"]))}. An untrained network's best map scores {document["mask_iou_untrained"]}.</p>
<table><tr><th>figure</th><th>measured</th><th>bar</th><th></th></tr>{bars}</table>
<h2>Clips made from captions (first, middle, last frame; the judge's verdict on Class, Colour, Background)</h2>
<img src="embedded-generated.png" alt="generated clips">
<h2>Source, inverted and sampled back, the word's best map</h2><img src="embedded-inverted.png" alt="reconstructions">
<h2>Where and when the word's map is sharp</h2><img src="embedded-maps.png" alt="curves">
<div class="side"><div>{_table("Generated clips", document["generated_by"])}</div>
<div>{_table("Real held-out clips", document["real_by"])}</div></div>
"""
    path = folder / "embedded.html"
    path.write_text(page)
    return path
