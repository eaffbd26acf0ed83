"""The page: its parts and what is bound to what. What happens then is in `touched`."""

from importlib.resources import files
from typing import Any

import gradio as gr
from gradio.themes import Default

from experiments.app import parts
from experiments.app.fields import SETTINGS, SHOWN
from experiments.app.touched import Touched
from experiments.app.visit import MAP, House

TITLE = """# freemask
Change words in a clip's description. Choose a clip and its two prompts; **Look** at where the model sees the word,
move the sliders, or paint the mask; **Edit**."""
JOB: Any = {"concurrency_id": "job", "concurrency_limit": 1, "api_visibility": "private"}
QUICK: Any = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
LAST: Any = {**QUICK, "trigger_mode": "always_last"}


def asset(name: str) -> str:
    return (files("experiments.app") / "assets" / name).read_text(encoding="utf-8")


def look() -> dict[str, Any]:
    """How the page looks, with nothing from elsewhere: no fonts, no scripts."""
    theme = Default(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return {"theme": theme, "css": asset("page.css"), "head": f"<script>{asset('clips.js')}</script>"}


def page(house: House, debug: bool = False) -> gr.Blocks:
    with gr.Blocks(title="freemask", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown(TITLE)
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                chosen = parts.settings(house)
            with gr.Column(scale=9, min_width=440):
                status = gr.HTML(elem_id="status")
                with gr.Tabs() as tabs:
                    with gr.Tab("1 Look", id="look"):
                        seen = parts.look()
                    with gr.Tab("2 Paint the mask", id="paint"):
                        paint = parts.paint()
                    with gr.Tab("3 The edit", id="edit"):
                        made = parts.edit()
        command = gr.Textbox(
            label="The command that does the same (in the folder in which freemask app was started)",
            elem_id="command",
            buttons=["copy"],
            lines=2,
            interactive=False,
        )
        hint = gr.HTML(elem_id="hint")
        named = {
            **chosen,
            **seen,
            **paint,
            **made,
            "status": status,
            "tabs": tabs,
            "command": command,
            "hint": hint,
        }
        _bind(blocks, named, Touched(house, debug))
    return blocks


def _bind(blocks: gr.Blocks, named: dict[str, Any], touched: Touched) -> None:
    def given(*names: str) -> list[Any]:
        return [named[name] for name in names]

    settings, shown = given(*SETTINGS), given(*SHOWN)
    blocks.load(touched.welcome, settings, given("clip", "source", "target", "preview", "status"), **QUICK)
    blocks.unload(touched.leave)
    picked = given("source", "target", "words", "masks", "preview", "status")
    named["drop"].upload(touched.drop, [named["drop"], *settings], [named["clip"], *picked], **QUICK)
    named["clip"].input(touched.pick, settings, picked, **LAST)
    named["method"].input(
        touched.method, given("method"), given("model", "mask", "steps", "guidance"), **QUICK
    )
    gr.on(
        [each.change for each in [*settings, *shown]],
        touched.command,
        [*settings, *shown],
        given("command", "hint"),
        **LAST,
    )
    large = given("sheet", "view", "about")
    looking = named["look"].click(
        touched.look,
        settings,
        [
            *large,
            *given(
                "head", "legend", "large", "layer", "time", "frame", "threshold", "tabs", "status", "hint"
            ),
        ],
        show_progress_on=named["status"],
        **JOB,
    )
    for name in ("layer", "time", "frame", "threshold"):
        named[name].input(touched.show, [*shown, named["frame"]], large, **LAST)
    named["sheet"].select(touched.click, [*shown, named["frame"]], [*large, *given("layer", "time")], **QUICK)
    named["use_map"].click(lambda: MAP, None, named["masks"], **QUICK)
    canvas = given("editor", "paint_frame", "tabs")
    for name, begin in (
        ("from_map", touched.from_map),
        ("again", touched.from_map),
        ("empty", touched.from_nothing),
    ):
        named[name].click(begin, [*shown, named["frame"]], canvas, **QUICK)
    on_canvas = given("editor", "everywhere", "paint_frame")
    named["paint_frame"].release(touched.turn, on_canvas, named["editor"], **LAST)
    named["use_painting"].click(
        touched.use_painting, [*settings, *on_canvas], given("masks", "painting", "status"), **QUICK
    ).then(touched.command, [*settings, *shown], given("command", "hint"), **QUICK)
    editing = named["edit"].click(
        touched.edit,
        [*settings, *shown],
        given("result", "beside", "numbers", "tabs", "status"),
        show_progress_on=named["status"],
        **JOB,
    )
    named["beside"].input(touched.beside, named["beside"], named["result"], **QUICK)
    named["stop"].click(touched.stop, None, named["status"], cancels=[looking, editing], **QUICK)
