"""The page to play with, without its page: settings and their command, looking, painting, jobs that stop, the guard."""

import asyncio
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from test_boundaries import imports

import experiments.app
from experiments.app import html, painting, pictures
from experiments.app import settings as app_settings
from experiments.app.editing import edited
from experiments.app.fields import SETTINGS, settings_of, shown_of
from experiments.app.looked import Looked
from experiments.app.looking import look_at
from experiments.app.painting import Painted
from experiments.app.serve import POLICY, Guard
from experiments.app.settings import TEXTS, Asking, Settings, tasks, usual, values
from experiments.app.visit import MAP, PAINTED, STRATEGY, House, Shown, Visit
from experiments.app.work import Jobs, Reporter, Shelf, Stopped
from experiments.cli import words as typed_words
from experiments.cli.app import main
from experiments.cli.verbs import VERBS
from experiments.config.build import build
from experiments.config.compose import Composed, composed, plain
from experiments.config.explained import keys_of_verb
from experiments.runs.store import RunStore
from experiments.web.gate import Gate
from freemask.data.write import write_video
from freemask.errors import UserError
from freemask.masks.look import look

# The smallest clip that a tiny network of random weights edits.
TINY = (
    *("model=random", "mask=average", "method.steps=2", "metric=masked_psnr"),
    *("data.clips=1", "data.frames=2", "data.size=16"),
)
EMBEDDED = ("method.steps=2", "data.clips=2", "data.frames=2")


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def silent(*_) -> None:
    pass


def reporter(stop: Event | None = None) -> Reporter:
    return Reporter(silent, stop or Event())


def settings(start=(), clip: str | None = None, **more) -> Settings:
    """What the page begins with."""
    first = usual(start)
    chosen = {key: first[key] for key in ("method", "task", "model", "mask", "steps", "guidance", "seed")}
    return Settings(
        **{"clip": clip or tasks(tuple(start))[0].id, "source": "", "target": "", **chosen, **more}
    )


def as_typed(command: str) -> list[str]:
    """What the command line makes of it."""
    program, *argv = shlex.split(command)
    assert program == "freemask"
    return typed_words.read(argv).overrides


def clip_file() -> str:
    write_video("a film, (1).mp4", torch.rand(3, 3, 32, 48), 8)
    return "a film, (1).mp4"


HARD = "a red car & 'one' \"two\" $HOME, ${seed} (fast) = [b] #{} \\ ü"
MANY = {
    "as it begins": ((), {}),
    "numbers": ((), {"steps": 3, "guidance": 2.5, "seed": 7}),
    "other prompts": ((), {"target": HARD, "words": "car:bus"}),
    "a method that chooses its model": ((), {"method": "pnp", "model": "embedded_image"}),
    "another model than the method's": ((), {"method": "ddim", "model": "random", "task": "shape"}),
    "a map": ((), {"masks": ("mask=layer", "mask.layer=up_blocks.1", "mask.binarise.threshold=0.3")}),
    "a start": (("data.clips=2", "mask=layer", "mask.layer=up", "method.steps=9"), {"steps": 9}),
    "another mask than at the start": (("mask=layer", "mask.layer=up", "seed=3"), {"mask": "agreement"}),
}


@pytest.mark.parametrize("start, more", MANY.values(), ids=MANY)
def test_the_command_is_composed_to_what_the_page_does(start, more):
    asked = settings(start, **more)
    own, theirs = asked.overrides(start), as_typed(asked.command(start))
    assert composed("edit", theirs).choices == composed("edit", own).choices
    said = plain(composed("edit", theirs).cfg)
    assert said == plain(composed("edit", own).cfg)
    for key in ("steps", "guidance", "seed"):
        at = said if key == "seed" else said["method"]
        assert at[key] == getattr(asked, key)
    assert said["target"] == (asked.target or None) and said["clip"] == asked.clip


def test_the_command_of_a_file_is_true():
    asked = settings(clip=clip_file(), source=HARD, target="a blue car", frames=2)
    asking = Asking.of(as_typed(asked.command()))
    assert asking.config == Asking.of(asked.overrides()).config
    assert (asking.task.source, asking.config["frames"], asking.config["clip"]) == (
        HARD,
        2,
        "a film, (1).mp4",
    )


def test_the_command_says_no_more_than_is_needed():
    assert settings().command() == f"freemask edit clip={tasks(())[0].id}"
    start = ("mask=layer", "mask.layer=up_blocks.1")
    assert "mask.layer" in settings(start).command(start)
    assert settings(start, mask="agreement").command(start).endswith(" mask=agreement")
    own = tasks(())[0]
    assert settings(source=own.source, target=own.target).command() == settings().command()
    assert settings(frames=3).command() == settings().command()  # frames are for files


def test_so_many_configurations_are_kept_at_hand(monkeypatch):
    monkeypatch.setattr(app_settings, "_composed", lambda words: Composed(OmegaConf.create({}), {}))
    for seed in range(app_settings.COMPOSED + 5):
        values((f"seed={seed}",))
    assert app_settings._values.cache_info().currsize <= app_settings.COMPOSED
    app_settings._values.cache_clear()


def test_fields_are_read_as_they_are_typed():
    def read(**more) -> Settings:
        given = {
            **dict.fromkeys(SETTINGS),
            "clip": "c",
            "method": "ddim",
            "model": "m",
            "mask": "k",
            "task": "any",
        }
        return settings_of([{**given, **more}[key] for key in SETTINGS])

    assert read() == Settings("c", "", "", "ddim", "m", "k", "any")
    found = read(steps=4.0, guidance=" 2,5 ", seed=3, frames="7", words="car:bus")
    assert (found.steps, found.guidance, found.seed, found.frames, found.words) == (4, 2.5, 3, 7, "car:bus")
    assert read(steps=0).steps == 0 and read(guidance="2").guidance == 2
    for wrong in (
        {"guidance": "much"},
        {"guidance": "nan"},
        {"frames": "inf"},
        {"seed": 1.5},
        {"steps": "2.5"},
    ):
        with pytest.raises(UserError, match="number"):
            read(**wrong)
    shown = shown_of([3, 1, 0.5, None])
    assert (shown.layer, shown.time, shown.mask) == (2, 0, STRATEGY)


def test_plain_texts_are_those_of_the_verb():
    verb = VERBS["edit"]
    assert set(TEXTS) == {*verb.prompts, *verb.paths}


def test_what_is_wrong_is_said_before_anything_is_loaded():
    with pytest.raises(UserError, match="steps"):
        Asking.of(settings(steps=0).overrides()).planned()
    with pytest.raises(UserError, match="source prompt is needed"):
        Asking.of(settings(clip=clip_file()).overrides())
    with pytest.raises(UserError, match="no clip"):
        Asking.of(settings(clip="nothing", source="a", target="b").overrides())


def test_the_command_gives_the_same_frames_bit_for_bit():
    """With a painted mask; the edit of the page lies where the command leaves its own."""
    asked = settings(TINY)
    visit = House(TINY).visit("somebody")
    looked = visit.look(asked, "somebody", silent)
    mask = torch.zeros(looked.clip.frames.shape[0], 16, 16)
    mask[:, 2:9, 3:12] = 1
    visit.painted = Painted.begun(looked.clip.frames, mask)
    visit.use(asked)
    shown = Shown(mask=PAINTED)
    made = visit.edit(asked, shown, "somebody", silent)
    command = visit.command(asked, shown)
    ours = {path.name: path.read_bytes() for path in (made.folder / "frames").iterdir()}
    (made.folder / "frames").rename("ours")
    assert main(shlex.split(command)[1:]) == 0
    theirs = {path.name: path.read_bytes() for path in (made.folder / "frames").iterdir()}
    assert len(ours) == 2 and ours == theirs
    first, second = RunStore(made.folder).rows()
    for key in ("metrics", "run", "choices", "words", "kind", "model", "guidance", "steps"):
        assert first[key] == second[key], key
    assert first["choices"]["mask"] == "segmentation" and "painted" not in command
    assert np.array_equal(np.load(made.folder / "masks.npz")["mask"] > 127, mask.bool().numpy())


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Looked:
    """The first clip of the world: an attribute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("seen"))
        return look_at(settings(EMBEDDED).overrides(EMBEDDED), Shelf(), reporter())


def test_every_map_is_seen_and_the_choice_of_the_codebook_marked(seen: Looked):
    sites = [site.name for site in seen.subject.sites.values() if site.role == "cross"]
    assert seen.layers == sites and seen.times == sorted(seen.subject.times) and len(seen.times) == 2
    assert set(seen.maps) == {(site, time) for site in sites for time in seen.times}
    assert seen.book is not None and seen.seen is not None
    (picked,) = seen.picked
    assert picked == (seen.book.book.best_site, seen.seen.facts["mask_time"])
    assert (seen.layers[seen.start()[0]], seen.times[seen.start()[1]]) == picked
    assert any("layer" in line and "mmc_by_layer" in line for line in seen.lines())


def test_a_shape_edit_takes_the_layer_at_every_time():
    words = settings(EMBEDDED, clip=tasks(EMBEDDED)[1].id).overrides(EMBEDDED)
    found = look_at(words, Shelf(), reporter())
    assert found.subject.task.kind == "shape" and found.book is not None
    assert found.picked == {(found.book.book.best_site, time) for time in found.times}


@pytest.mark.parametrize("place", [(0, 0, 0.2), (13, 1, 0.45)])
def test_a_map_is_what_the_command_makes_of_it(seen: Looked, place):
    asked = settings(EMBEDDED, masks=seen.words(*place))
    config = Asking.of(as_typed(asked.command(EMBEDDED))).config
    strategy = build(config["mask"], "mask")
    assert strategy == seen.strategy(*place)
    again = look(Shelf().model(config), seen.subject, {"layer": strategy}).seen["layer"]
    found = seen.map(*place)
    assert (
        again.heat is not None
        and torch.equal(found.mask, again.mask)
        and torch.allclose(found.heat, again.heat)
    )
    assert found.score == again.score and 0 < found.mask.mean() < 1


def test_a_map_of_shares_is_told_apart(seen: Looked):
    """Models whose codebook was measured so."""
    shares = replace(seen, one=replace(seen.one, heat="share"))
    config = Asking.of(as_typed(settings(EMBEDDED, masks=shares.words(3, 1, 0.2)).command(EMBEDDED))).config
    assert build(config["mask"], "mask") == shares.strategy(3, 1, 0.2) != seen.strategy(3, 1, 0.2)


def test_the_sheet_marks_what_is_taken_and_nothing_else(seen: Looked):
    picture, cells = np.asarray(pictures.sheet(seen, 0)), pictures.cells_of(seen)
    assert picture.shape[:2] == cells.size[::-1]
    (picked,) = seen.picked
    left, top, right, low = cells.box(seen.layers.index(picked[0]), seen.times.index(picked[1]))
    marked = np.argwhere((picture == pictures.MARK).all(axis=-1))
    reach = pictures.LINE
    assert marked.min(0).tolist() == [top - reach, left - reach]
    assert marked.max(0).tolist() == [low + reach - 2, right + reach - 2]
    assert ((picture == pictures.BOOK).all(axis=-1)).any()  # names in the codebook's colour
    assert cells.at(left + 2, top + 2) == (seen.layers.index(picked[0]), seen.times.index(picked[1]))
    assert cells.at(2, 2) is None and cells.at(*cells.size) is None
    shown = np.asarray(pictures.marked(pictures.sheet(seen, 0), seen, 3, 1))
    left, top, *_ = cells.box(3, 1)
    assert tuple(shown[top, left]) == pictures.SHOWN


def test_without_a_codebook_nothing_is_marked_and_the_page_says_why():
    words = settings(TINY, mask="mmc").overrides(TINY)
    found = look_at(words, Shelf(), reporter())
    assert found.book is None and not found.picked and found.maps
    assert any("codebook" in note for note in found.notes)
    layer, time = found.start()
    assert found.map(layer, time, 0.2).mask.shape == (2, 16, 16)


def test_paint_and_erase_for_one_frame_or_all():
    frames, mask = torch.rand(3, 3, 16, 16), torch.zeros(3, 16, 16)
    mask[:, :4] = 1
    mask[2, 8:12] = 1
    painted = Painted.begun(frames, mask)
    assert painted.scale == 28
    canvas = painted.canvas(0)
    assert canvas["background"].shape == (448, 448, 3)
    layer = canvas["layers"][0].copy()
    assert torch.equal(painted.taken(0, layer).masks, painted.masks)
    layer[:28] = 0  # erase the first row
    layer[14 * 28 :] = (255, 217, 0, 150)  # paint the last two
    alone, every = painted.taken(0, layer), painted.taken(0, layer, everywhere=True)
    assert torch.equal(alone.masks[1:], painted.masks[1:])
    assert alone.masks[0, :, 0].nonzero().flatten().tolist() == [1, 2, 3, 14, 15]
    assert torch.equal(every.masks[0], alone.masks[0]) and torch.equal(every.masks[1], alone.masks[0])
    assert every.masks[2, :, 0].nonzero().flatten().tolist() == [1, 2, 3, 8, 9, 10, 11, 14, 15]


def test_a_painting_lies_in_a_folder_that_the_strategy_reads(seen: Looked):
    masks = torch.rand(seen.clip.frames.shape[0], *seen.clip.frames.shape[-2:]) > 0.6
    painted = Painted.begun(seen.clip.frames, masks.float())
    folder = painted.leave(Path("my paintings"), "a film.mp4")
    assert folder == painted.leave(Path("my paintings"), "a film.mp4")
    assert folder != painted.taken(0, painted.canvas(1)["layers"][0]).leave(
        Path("my paintings"), "a film.mp4"
    )
    asked = settings(EMBEDDED, masks=painting.words(folder))
    strategy = build(Asking.of(as_typed(asked.command(EMBEDDED))).config["mask"], "mask")
    found = strategy._masks(seen.subject)
    assert torch.equal(found > 0.5, masks)


def test_one_job_at_a_time_and_each_can_be_stopped_by_its_own_visitor():
    jobs, order, begun, go_on = Jobs(), [], Event(), Event()

    def work(who: str, wait: bool) -> None:
        try:
            with jobs.one(
                who,
                lambda share, said: (
                    order.append((who, said))
                    if said == "waiting for another job" and (who, said) not in order
                    else None
                ),
            ) as report:
                order.append((who, "begins"))
                begun.set()
                while wait and not go_on.wait(0.01):
                    report.stage("step", 1, 2)
                order.append((who, "ends"))
        except Stopped:
            order.append((who, "stopped"))

    first, second, third = (Thread(target=work, args=(who, who == "a")) for who in "abc")
    first.start()
    begun.wait(5)
    second.start()
    while ("b", "waiting for another job") not in order:
        pass
    assert jobs.stop("b") == 1 and jobs.stop("nobody") == 0
    second.join(5)
    assert order[-1] == ("b", "stopped") and ("b", "begins") not in order
    third.start()
    while ("c", "waiting for another job") not in order:
        pass
    jobs.stop("a")
    first.join(5)
    third.join(5)
    assert order[-3:] == [("a", "stopped"), ("c", "begins"), ("c", "ends")] and jobs.stop("a") == 0


def test_a_stopped_edit_leaves_nothing_and_the_model_as_it_was():
    shelf, words, stop, stages = Shelf(), settings(TINY).overrides(TINY), Event(), []

    def show(share: float, said: str) -> None:
        stages.append(said)
        if said == "sampling: 1 of 2":
            stop.set()

    with pytest.raises(Stopped):
        edited(words, shelf, Reporter(show, stop))
    assert stages[-1] == "sampling: 1 of 2" and not list(Path("runs/edits").glob("*"))
    model = shelf._model
    again, fresh = edited(words, shelf, reporter()), edited(words, Shelf(), reporter())
    assert shelf._model is model and torch.equal(again.edit.frames, fresh.edit.frames)
    assert again.numbers() and again.seconds > 0 and "sampling" in again.outcome.seconds


def test_another_model_takes_the_place_of_the_one_that_is_kept():
    shelf, config = Shelf(), values(TINY)
    model = shelf.model(config)
    assert shelf.model(values((*TINY, "method.steps=3"))) is model
    other = shelf.model(values((*TINY, "model.seed=1")))
    assert other.identity != model.identity and shelf.model(values((*TINY, "model.seed=1"))) is other


def test_a_dropped_clip_stays_where_the_command_names_it():
    visit = Visit(House(TINY))
    kept = visit.keep(clip_file())
    assert (
        Path(kept).parent == Path("runs/app/clips")
        and Path(kept).read_bytes() == Path("a film, (1).mp4").read_bytes()
    )
    assert visit.clips()[0] == ("a film, (1).mp4", kept)
    frames, fps = visit.frames(settings(TINY, clip=kept))
    assert len(frames) == 3 and fps == 8
    Path("notes.txt").touch()
    with pytest.raises(UserError, match="no clip"):
        visit.keep("notes.txt")
    for shown in (Shown(mask=MAP), Shown(mask=PAINTED)):
        with pytest.raises(UserError, match="yet"):
            visit.command(settings(TINY), shown)


def test_nothing_that_was_typed_becomes_a_part_of_the_page():
    evil = '<img src=x onerror="alert(1)">'
    for text in (
        html.status(evil, [evil]),
        html.told(UserError(evil, came=evil)),
        html.player({evil: torch.rand(1, 3, 4, 4)}, 8),
    ):
        assert "<img" not in text and "&lt;img" in text


def answered(guard: Guard, kind: str = "http", query: str = "", **headers: str) -> list[dict]:
    said: list[dict] = []

    async def send(message: dict) -> None:
        said.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": "/", "query_string": query.encode(), "headers": raw}
    asyncio.run(guard(scope, None, send))  # type: ignore
    return said


async def page_inside(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})


def test_only_pages_of_its_own_address_are_answered():
    guard, headers = Guard(page_inside, Gate.of("127.0.0.1", 7860, None)), {"host": "127.0.0.1:7860"}
    (start,) = answered(guard, **headers, origin="http://127.0.0.1:7860")
    assert start["status"] == 200 and dict(start["headers"])[b"content-security-policy"] == POLICY.encode()
    assert b"set-cookie" not in dict(start["headers"])
    start, body = answered(guard, **headers, origin="http://evil.example")
    assert start["status"] == 403 and b"not a page of this address" in body["body"]
    assert answered(guard, "websocket", host="localhost:7860")[0]["type"] == "websocket.close"
    assert "http" not in POLICY


def test_without_the_token_nothing_of_the_page_is_answered():
    guard = Guard(page_inside, Gate.of("127.0.0.1", 7860, "ab c"))
    start, body = answered(guard, host="localhost:7860")
    assert start["status"] == 403 and b"token is missing or wrong" in body["body"]
    (start,) = answered(guard, query="token=ab%20c", host="localhost:7860")
    cookie = dict(start["headers"])[b"set-cookie"].decode()
    assert (
        start["status"] == 200 and "HttpOnly; SameSite=Strict" in cookie and "ab" not in cookie.split("=")[0]
    )
    shown = cookie.partition(";")[0]
    (start,) = answered(guard, host="localhost:7860", cookie=f"other={{}}; {shown}")
    assert start["status"] == 200 and b"set-cookie" not in dict(start["headers"])
    assert answered(guard, host="localhost:7860", cookie=shown[:-1])[0]["status"] == 403


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app"]) == 2
    said = capsys.readouterr().err
    assert (
        "freemask app needs gradio" in said
        and 'pip install "freemask[app]"' in said
        and "Traceback" not in said
    )


def test_help_tells_of_the_page(capsys):
    assert main(["app", "--help"]) == 0
    said = capsys.readouterr().out
    assert "port=7860" in said and "freemask[app]" in said
    assert {key.name for key in keys_of_verb("app")} == {"host", "port", "seed", "token"}


def test_the_page_begins_as_the_command_does():
    """The same groups, and the same choice in each."""
    assert composed("app", []).choices == {
        group: each for group, each in composed("edit", []).choices.items() if group != "experiment"
    }


def test_a_subject_of_several_edits_is_not_looked_at():
    start = (*TINY, "data.levels=[class]", "data.size=32")
    with pytest.raises(UserError, match="only one edit at a time"):
        look_at(settings(start).overrides(start), Shelf(), reporter())


def test_only_the_page_itself_knows_gradio():
    room = Path(experiments.app.__file__).parent
    assert {path.stem for path in room.glob("*.py") if "gradio" in set(imports(path))} == {
        "page",
        "parts",
        "touched",
    }
