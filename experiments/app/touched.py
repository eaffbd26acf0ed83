"""What happens where something on the page is touched: plain values in, plain values and updates of parts out."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import gradio as gr

from experiments.app import html, pictures
from experiments.app.fields import both_of, layer_of, place_of, settings_of, shown_of
from experiments.app.painting import Painted
from experiments.app.settings import Settings, usual
from experiments.app.visit import PAINTED, STRATEGY, House, Shown, Visit
from experiments.app.work import Stopped
from experiments.jobs.pictures import veiled
from freemask.errors import UserError

WELCOME = "Next: press Look to see where the model sees the word, or Edit at once."
LOOKED = "Next: click a map or move the sliders, paint the mask, or press Edit."
PROMPTS = "Next: say what the clip shows, and what it is to show. A clip of your own has no prompts yet."
OTHERWISE = "What part 1 shows belongs to other settings: press Look again."
IDLE = "Nothing of yours was at work, and nothing waits."
STOPPED = "Stopped, after the step that was in hand. Nothing of it is left."


def telling(do: Callable) -> Callable:
    """What is wrong with what was asked is said on the page, in our own words."""

    @wraps(do)
    def done(self: "Touched", *given: Any) -> Any:
        try:
            return do(self, *given)
        except Stopped:
            raise gr.Error(
                "Nothing of it is left.", title="Stopped", duration=5, print_exception=False
            ) from None
        except UserError as error:
            raise _not_so(error) from None
        except Exception as error:
            if self.debug:
                raise
            wrong = f"something went wrong that should not: {type(error).__name__}: {error}"
            print(f"freemask: {wrong}", file=sys.stderr)
            raise _not_so(UserError(wrong, todo="freemask app --debug shows in the terminal where")) from None

    return done


def _not_so(error: UserError) -> gr.Error:
    return gr.Error(html.told(error), title="Not so", duration=None, print_exception=False)


class Touched:
    """Values come in the order of `fields.SETTINGS` and `fields.SHOWN`."""

    def __init__(self, house: House, debug: bool = False) -> None:
        self.house, self.debug = house, debug

    @telling
    def welcome(self, request: gr.Request, *given: Any) -> Any:
        visit, settings = self._visit(request), settings_of(given)
        own = self._prompts(settings.clip)
        return gr.update(choices=visit.clips()), *own, self._preview(visit, settings), html.status(WELCOME)

    def leave(self, request: gr.Request) -> None:
        self.house.leave(str(request.session_hash))

    @telling
    def drop(self, request: gr.Request, path: str, *given: Any) -> Any:
        visit = self._visit(request)
        settings = replace(settings_of(given), clip=visit.keep(path))
        return gr.update(choices=visit.clips(), value=settings.clip), *self._picked(visit, settings)

    @telling
    def pick(self, request: gr.Request, *given: Any) -> Any:
        return self._picked(self._visit(request), settings_of(given))

    @telling
    def method(self, method: str) -> Any:
        found = usual(self.house.start, method)
        steps = gr.update(value=found["steps"], interactive=found["has_steps"])
        guidance = "" if found["guidance"] is None else f"{found['guidance']:g}"
        return found["model"], found["mask"], steps, guidance

    @telling
    def command(self, request: gr.Request, *given: Any) -> Any:
        visit = self._visit(request)
        try:
            settings, shown = both_of(given)
            said = visit.command(settings, shown)
        except UserError as error:
            return "", html.status(f"{error.wrong}{f' ({error.todo})' if error.todo else ''}")
        if settings.is_file(self.house.start) and not (settings.source and settings.target):
            return said, html.status(PROMPTS)
        return said, html.status(OTHERWISE) if visit.outdated(settings) else ""

    @telling
    def look(self, request: gr.Request, progress: Any = gr.Progress(), *given: Any) -> Any:  # noqa: B008
        visit, settings = self._visit(request), settings_of(given)
        looked = visit.look(settings, _who(request), _bar(progress))
        layer, time = looked.start()
        frames, layers, times = len(looked.clip.frames), len(looked.layers), len(looked.times)
        frame, shown = (frames - 1) // 2, Shown(layer, time, looked.threshold)
        whole, view, about = self._large(visit, shown, frame)
        return (
            gr.update(value=whole, visible=True),
            view,
            about,
            gr.update(visible=False),
            html.legend(looked),
            gr.update(visible=True),
            gr.update(maximum=max(2, layers), value=layer + 1),
            gr.update(maximum=max(2, times), value=time + 1),
            gr.update(maximum=max(2, frames), value=frame + 1),
            looked.threshold,
            gr.update(selected="look"),
            html.status(LOOKED, looked.notes),
            "",
        )

    @telling
    def show(self, request: gr.Request, *given: Any) -> Any:
        visit = self._visit(request)
        return self._large(visit, shown_of(given[:4]), place_of(given[4]))

    @telling
    def click(self, request: gr.Request, event: gr.SelectData, *given: Any) -> Any:
        visit, shown = self._visit(request), shown_of(given[:4])
        at = None if visit.looked is None else pictures.cells_of(visit.looked).at(*event.index)
        layer, time = at or (shown.layer, shown.time)
        shown = replace(shown, layer=layer, time=time)
        return *self._large(visit, shown, place_of(given[4])), layer + 1, time + 1

    @telling
    def from_map(self, request: gr.Request, *given: Any) -> Any:
        return self._canvas(self._visit(request), shown_of(given[:4]), place_of(given[4]))

    @telling
    def from_nothing(self, request: gr.Request, *given: Any) -> Any:
        return self._canvas(self._visit(request), None, place_of(given[4]))

    @telling
    def turn(self, request: gr.Request, canvas: Any, everywhere: bool, frame: float) -> Any:
        """Another frame: what was painted on the one before is kept."""
        visit = self._visit(request)
        painted = visit.take(layer_of(canvas), everywhere)
        visit.turned = min(place_of(frame), len(painted.masks) - 1)
        return _editor(painted, visit.turned)

    @telling
    def use_painting(self, request: gr.Request, *given: Any) -> Any:
        visit, settings = self._visit(request), settings_of(given[:-3])
        canvas, everywhere, _ = given[-3:]
        painted = visit.take(layer_of(canvas), everywhere)
        folder = visit.use(settings)
        shown = {"the mask, clear inside": veiled(painted.frames, painted.masks.float())}
        said = f"The edit will have the painted mask, which lies in {folder}. Next: press Edit."
        return (
            PAINTED,
            html.player(shown, painted.fps, tall=240),
            html.status(said),
        )

    @telling
    def edit(self, request: gr.Request, progress: Any = gr.Progress(), *given: Any) -> Any:  # noqa: B008
        visit, (settings, shown) = self._visit(request), both_of(given)
        made = visit.edit(settings, shown, _who(request), _bar(progress))
        names = [name for name in made.outcome.clips() if name != "edited"]
        said = html.status(f"Edited in {made.seconds:.1f} s: {made.title}", made.notes)
        names_of = gr.update(choices=names, value="source", visible=len(names) > 1)
        return self._beside(visit, "source"), names_of, html.numbers(made), gr.update(selected="edit"), said

    @telling
    def beside(self, request: gr.Request, name: str) -> Any:
        return self._beside(self._visit(request), name)

    def stop(self, request: gr.Request) -> str:
        stopped = self.house.jobs.stop(_who(request))
        return html.status(STOPPED if stopped else IDLE)

    def _visit(self, request: gr.Request) -> Visit:
        return self.house.visit(_who(request))

    def _prompts(self, clip: str) -> tuple[str, str]:
        task = next((task for task in self.house.tasks if task.id == clip), None)
        return ("", "") if task is None else (task.source, task.target)

    def _picked(self, visit: Visit, settings: Settings) -> Any:
        """Another clip: its prompts, none of the words and masks of the one before, and what it looks like."""
        source, target = self._prompts(settings.clip)
        said = WELCOME if source else PROMPTS
        return source, target, "", STRATEGY, self._preview(visit, settings), html.status(said)

    def _preview(self, visit: Visit, settings: Settings) -> str:
        if not settings.clip:
            return "<p>Drop a clip, or pick one.</p>"
        frames, fps = visit.frames(settings)
        return html.player({f"{len(frames)} frames": frames}, fps, tall=160)

    def _large(self, visit: Visit, shown: Shown, frame: int) -> tuple[Any, Any, str]:
        found = visit.map(shown)
        looked = visit.looked
        assert looked is not None
        frame = min(frame, len(looked.clip.frames) - 1)
        whole = pictures.marked(visit.sheet(frame), looked, shown.layer, shown.time)
        return whole, pictures.view(looked, found, frame), html.about(looked, found, shown.layer, shown.time)

    def _canvas(self, visit: Visit, shown: Shown | None, frame: int) -> Any:
        painted = visit.begin(shown)
        visit.turned, last = min(frame, len(painted.masks) - 1), len(painted.masks)
        slider = gr.update(maximum=max(2, last), value=visit.turned + 1)
        return _editor(painted, visit.turned), slider, gr.update(selected="paint")

    def _beside(self, visit: Visit, name: str) -> str:
        if visit.edited is None:
            return "<p>Nothing is edited yet.</p>"
        clips = visit.edited.outcome.clips()
        return html.player({name: clips[name], "edited": clips["edited"]}, visit.edited.clip.fps)


def _who(request: gr.Request) -> str:
    return str(request.session_hash)


def _bar(progress: Any) -> Callable[[float, str], None]:
    return lambda share, said: progress(share, desc=said)


def _editor(painted: Painted, frame: int) -> Any:
    """What is painted on, of its own size: otherwise the editor draws the mask in another place than the frame."""
    canvas = painted.canvas(frame)
    high, wide = canvas["background"].shape[:2]
    return gr.update(value=canvas, canvas_size=(wide, high))
