"""The parts of the page, by name."""

from typing import Any

import gradio as gr

from experiments.app.settings import offered, usual
from experiments.app.visit import DROPPED, MAP, PAINTED, STRATEGY, House, Visit

BEFORE = """<h3>Before anything is edited</h3><p>Press <b>Look</b>: the clip is inverted, and here you see how strongly
each layer of the model, at each time, attends to the word that the edit is about. The maps that the mask strategy takes
are marked.</p>"""
BRUSH = "rgba(255, 217, 0, 0.6)"


def settings(house: House) -> dict[str, Any]:
    first, known = usual(house.start), Visit(house).clips()
    parts: dict[str, Any] = {}
    clip = known[0][1] if known else None
    parts["clip"] = gr.Dropdown(known, value=clip, label="Clip", elem_id="clip")
    with gr.Row():
        parts["preview"] = gr.HTML(elem_id="preview", min_width=140)
        parts["drop"] = gr.File(
            label="or one of your own", file_types=list(DROPPED), height=190, elem_id="drop", min_width=140
        )
    parts["source"] = gr.Textbox(
        label="What the clip shows", placeholder="a red car on a road", max_lines=1, elem_id="source"
    )
    parts["target"] = gr.Textbox(
        label="What it is to show", placeholder="a blue car on a road", max_lines=1, elem_id="target"
    )
    with gr.Row():
        parts["look"] = gr.Button("Look", variant="secondary", elem_id="look", min_width=80)
        parts["edit"] = gr.Button("Edit", variant="primary", elem_id="edit", min_width=80)
        parts["stop"] = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80)
    parts["masks"] = gr.Radio(
        [STRATEGY, MAP, PAINTED], value=STRATEGY, label="Mask of the edit", elem_id="masks"
    )
    with gr.Accordion("How it is edited", open=True), gr.Group():
        with gr.Row():
            for group, label in (
                ("mask", "Mask strategy"),
                ("method", "Method"),
                ("model", "Model"),
                ("task", "Kind"),
            ):
                names: Any = offered(group)
                if group == "task":
                    names = [("by the prompts" if name == "any" else name, name) for name in names]
                parts[group] = gr.Dropdown(
                    names, value=first[group], label=label, elem_id=group, min_width=130
                )
        with gr.Row():
            parts["steps"] = gr.Number(
                first["steps"], label="Steps", precision=0, elem_id="steps", min_width=100
            )
            guidance = "" if first["guidance"] is None else f"{first['guidance']:g}"
            parts["guidance"] = gr.Textbox(
                guidance,
                label="Guidance",
                placeholder="as the model asks",
                max_lines=1,
                elem_id="guidance",
                min_width=100,
            )
        with gr.Row():
            parts["seed"] = gr.Number(first["seed"], label="Seed", precision=0, elem_id="seed", min_width=100)
            parts["frames"] = gr.Textbox(
                label="Frames of a file", placeholder="8", max_lines=1, elem_id="frames", min_width=100
            )
        parts["words"] = gr.Textbox(
            label="Words", placeholder="read off the prompts; otherwise car:bus, road:snow", elem_id="words"
        )
    return parts


def look() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    parts["head"] = gr.HTML(BEFORE, elem_id="head")
    parts["sheet"] = gr.Image(
        show_label=False,
        elem_id="sheet",
        format="png",
        interactive=False,
        visible=False,
        buttons=["fullscreen", "download"],
    )
    parts["legend"] = gr.HTML(elem_id="legend")
    with gr.Column(visible=False) as parts["large"]:
        with gr.Row():
            for name, label in (("layer", "Layer"), ("time", "Time"), ("frame", "Frame")):
                parts[name] = gr.Slider(1, 2, 1, step=1, label=label, elem_id=name, min_width=200)
            parts["threshold"] = gr.Slider(
                0, 0.99, 0.2, step=0.01, label="Threshold", elem_id="threshold", min_width=200
            )
        parts["view"] = gr.Image(
            label="Left its heat, right its mask (clear inside)",
            elem_id="view",
            format="png",
            interactive=False,
            height=400,
            buttons=["fullscreen", "download"],
        )
        parts["about"] = gr.HTML(elem_id="about")
        with gr.Row():
            parts["use_map"] = gr.Button("Use this map as the mask of the edit", elem_id="use_map")
            parts["from_map"] = gr.Button("Paint on it", elem_id="from_map")
    return parts


def paint() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row():
        parts["again"] = gr.Button("Start from the map shown", elem_id="again")
        parts["empty"] = gr.Button("Start with nothing", elem_id="empty")
    with gr.Row():
        parts["paint_frame"] = gr.Slider(1, 2, 1, step=1, label="Frame", elem_id="paint_frame")
        parts["everywhere"] = gr.Checkbox(
            False, label="What I add or erase here holds for all frames", elem_id="everywhere"
        )
    parts["editor"] = gr.ImageEditor(
        label="Yellow: where the edit may change something. Brush and eraser are at the left.",
        elem_id="editor",
        type="numpy",
        image_mode="RGBA",
        sources=(),
        transforms=(),
        layers=False,
        brush=gr.Brush(default_size=24, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"),
        eraser=gr.Eraser(default_size=24),
        height=540,
        buttons=[],
    )
    parts["use_painting"] = gr.Button(
        "Use this painting as the mask of the edit", variant="primary", elem_id="use_painting"
    )
    parts["painting"] = gr.HTML(elem_id="painting")
    return parts


def edit() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    parts["result"] = gr.HTML("<p>Nothing is edited yet.</p>", elem_id="result")
    parts["beside"] = gr.Radio([], label="Beside it", elem_id="beside", visible=False)
    parts["numbers"] = gr.HTML(elem_id="numbers")
    return parts
