"""`freemask figure`: grids from stored frames, curves from calibrations, and what it says where something lacks."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from synthetic_rows import row, write

from evaluation.tables.papers import description, names, whole
from experiments.cli.app import main
from experiments.commands.figure import _tasks
from experiments.config import choices
from experiments.figures import mmc
from experiments.figures.mmc import short
from experiments.figures.papers import SOURCE, PaperFigure, figure_of
from experiments.figures.stored import books, kept
from experiments.figures.strips import Strips, draw
from experiments.runs.record import Record
from freemask.data.write import to_bytes
from freemask.masks.codebook import SHIPPED, Codebook
from freemask.masks.mmc import Estimate


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREEMASK_RUNS", "runs")


def clip(seed, frames=8, size=(16, 24)):
    return torch.rand(frames, 3, *size, generator=torch.Generator().manual_seed(seed))


def edit(run, variant, task="task-1", kind="shape", frames=8, **more):
    """A finished edit with its frames and those of its source, as `freemask run` keeps them."""
    folder = Path("runs") / run / variant
    edited, source = clip(10 + sum(map(ord, variant)), frames), clip(1, frames)
    files = {"frames": f"frames/{task}.npz", "source": f"sources/{task}.npz"}
    for name, shown in zip(files.values(), (edited, source), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        mask = more.get("mask")
        masks = {} if mask is None or shown is source else {"mask": mask}
        np.savez_compressed(folder / name, frames=to_bytes(shown), **masks)
    write(folder, [row(variant, task, more.get("metrics", {}), kind=kind, files=files)])
    return source, edited


def whole_fig4():
    for variant in choices.content("experiment", "freemask/fig4")["variants"]:
        edit("fig4", variant)


def test_a_grid_is_drawn_as_png_and_pdf(capsys):
    whole_fig4()
    assert main(["figure", "freemask/4"]) == 0
    said = capsys.readouterr().out
    assert "missing" not in said and "Ablation on a shape edit" in said
    with Image.open("reports/figures/freemask-4.png") as picture:
        assert min(picture.size) > 500
        assert len(set(picture.convert("L").tobytes())) > 50
    assert Path("reports/figures/freemask-4.pdf").read_bytes().startswith(b"%PDF")
    snippet = Path("reports/figures/freemask-4.tex").read_text()
    assert r"\includegraphics[width=\linewidth]{freemask-4.pdf}" in snippet and r"\caption{" in snippet


def test_a_mask_is_a_line_of_its_own_and_missing_where_none_was_kept(capsys):
    half = np.zeros((1, 16, 24), dtype=np.uint8)
    half[..., 12:] = 255
    edit("fatezero-fig4", "blended", frames=1, mask=half)
    (stored,) = kept([Path("runs/fatezero-fig4")])
    (shown,), (source,) = stored.masked(1), stored.clip(1)
    assert (
        np.abs(shown[:, 13:].astype(int) - source[:, 13:]).max() <= 1
    )  # clear inside, but for the line at its rim
    assert shown[:, :11].mean() < 0.7 * source[:, :11].mean()
    assert main(["figure", "fatezero/4"]) == 0
    assert "mask:" not in capsys.readouterr().out
    edit("fatezero-fig4", "blended", frames=1)
    assert kept([Path("runs/fatezero-fig4")])[0].masked(1) is None
    assert main(["figure", "fatezero/4"]) == 0
    assert "mask: freemask run experiment=fatezero/fig4 only=[blended]" in capsys.readouterr().out


def test_lines_that_are_missing_are_named_with_their_command(capsys, monkeypatch):
    edit("fig4", "b")
    edit("fig4", "c_self")
    assert main(["figure", "freemask/4", "out=there"]) == 0
    said = capsys.readouterr().out
    assert "(d) masked self: freemask run experiment=freemask/fig4 only=[d_masked_self]" in said
    assert "(c) self:" not in said and Path("there/freemask-4.png").is_file()
    edit("freemask-fig3", "freemask", kind="style")
    assert main(["figure", "freemask/3"]) == 0
    assert "FateZero: freemask run experiment=freemask/fig3 only=[fatezero]" in capsys.readouterr().out
    said = {"name": "freemask-fig3", "variants": {"freemask": []}}  # an experiment without the others
    monkeypatch.setattr("experiments.commands.figure.content", lambda name: said)
    assert main(["figure", "freemask/3"]) == 0
    assert "ControlVideo: no method yet" in capsys.readouterr().out


def test_names_that_do_not_match_are_told_beside_those_that_would(capsys):
    edit("mine", "my_self")
    assert main(["figure", "freemask/4", "runs=[mine]"]) == 2
    came = next(line for line in capsys.readouterr().err.splitlines() if "came:" in line)
    assert "my_self in runs/mine" in came and "c_self, d_masked_self" in came and "source" not in came
    assert main(["figure", "fatezero/4", "runs=[mine]"]) == 2
    assert "no_self, everywhere, blended" in (told := capsys.readouterr().err) and "mask of" not in told


def test_what_the_first_of_several_edits_has_left_is_a_line_of_its_own(capsys):
    edit("st-modulator-fig9", "joint", kind="instance")
    source, _ = edit("st-modulator-fig9", "in_turn", kind="instance")
    assert main(["figure", "st-modulator/9"]) == 0
    assert (
        "in turn, first: freemask run experiment=st-modulator/fig9 only=[in_turn]" in capsys.readouterr().out
    )
    file = Path("runs/st-modulator-fig9/in_turn/frames/task-1.npz")
    with np.load(file) as stored:
        np.savez_compressed(file, **stored, **{"after edit 1": to_bytes(source)})
    (found,) = (each for each in kept([Path("runs/st-modulator-fig9")]) if each.line == "in_turn")
    assert np.array_equal(found.left("after edit 1", 3) or [], to_bytes(source)[[0, 4, 7]])
    assert main(["figure", "st-modulator/9"]) == 0
    assert "in turn, first" not in capsys.readouterr().out


def test_frames_and_source_are_the_stored_ones():
    source, edited = edit("fig4", "b")
    (found,) = kept([Path("runs/fig4")])
    assert np.array_equal(found.edited(3), to_bytes(edited)[[0, 4, 7]])
    assert np.array_equal(found.clip(3) or [], to_bytes(source)[[0, 4, 7]])


def test_a_task_is_chosen_that_most_lines_have_and_others_can_be_asked_for(capsys):
    edit("fig5", "fatezero", "task-1")
    for task in ("task-2", "task-3"):
        edit("fig5", "fatezero", task)
        edit("fig5", "mmc", task)
    assert main(["figure", "freemask/5"]) == 0
    assert "missing" not in capsys.readouterr().out
    assert main(["figure", "freemask/5", "tasks=[task-1]"]) == 0
    assert "missing: FateZero + MMC" in capsys.readouterr().out
    assert main(["figure", "freemask/5", "tasks=[task-9]"]) == 2
    assert "did you mean 'task-" in capsys.readouterr().err


def test_a_figure_of_failures_shows_the_worst(capsys):
    for task, value in (
        ("task-1", 30.0),
        ("task-2", 11.0),
        ("task-3", None),
        ("task-4", 20.0),
        ("task-5", 12.0),
    ):
        edit("fatezero-fig10", "tuned", task, metrics={"oracle_psnr.inside": value})
    every = kept([Path("runs/fatezero-fig10")])
    assert _tasks(figure_of("fatezero/10"), [], every) == ["task-2", "task-5", "task-4"]
    assert main(["figure", "fatezero/10"]) == 0
    assert "Failures" in capsys.readouterr().out


def test_rows_without_frames_are_left_out():
    edit("fig4", "b")
    folder = Path("runs/fig4/c_self")
    outside = {"frames": "../../../secret.npz"}
    np.savez("secret.npz", frames=np.zeros((1, 2, 2, 3), np.uint8))
    write(folder, [row("c_self", "task-1", {}, files=outside), row("c_self", "task-2", {}, files={})])
    write(folder, [row("c_self", "task-3", {}, files={"frames": "frames/gone.npz"})])
    write(folder, [row("c_self", "task-4", {}, files={"frames": 3}), row("c_self", "task-5", {}, files=None)])
    assert [each.line for each in kept([Path("runs/fig4")])] == ["b"]


def test_broken_frames_are_named(capsys):
    edit("fig4", "b")
    Path("runs/fig4/b/frames/task-1.npz").write_bytes(b"no archive")
    assert main(["figure", "freemask/4"]) == 2
    assert "task-1.npz" in capsys.readouterr().err


WRONG = [
    ([], "freemask/4  Ablation"),
    (["freemask/2"], "there is no figure"),
    (["freemask/4"], "freemask run experiment=freemask/fig4"),
    (["freemask/1"], "freemask calibrate experiment=freemask/fig1"),
    (["freemask/4", "runs=[nowhere]"], "there is no run 'nowhere'"),
    (["freemask/4", "frames=0"], "1 to 8"),
    (["freemask/4", "frames=many"], "whole number"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_what_is_wrong_gets_one_message(words, said, capsys):
    assert main(["figure", *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown and not Path("reports").exists()


def test_a_folder_that_cannot_be_written_is_named(capsys):
    edit("fig4", "b")
    Path("file").write_text("")
    assert main(["figure", "freemask/4", "out=file"]) == 2
    assert "cannot write the figure" in capsys.readouterr().err


def calibration(folder: Path, book: Codebook):
    """A codebook, and an item whose maps were kept."""
    book.write(folder / "codebook.json")
    maps = {
        f"maps{k}": np.random.default_rng(k).random((len(book.times), 4, 4)) for k in range(len(book.sites))
    }
    (folder / "maps").mkdir()
    np.savez(
        folder / "maps" / "item.npz",
        sites=list(book.sites),
        times=list(book.times),
        frame=np.zeros((8, 8, 3), np.uint8),
        truth=np.ones((8, 8), bool),
        **maps,
    )
    Record("calibrate", told={"parts": {}}).write(folder)
    line = {"task": "item", "status": "done", "word": "car", "source": "a car"}
    write(folder, [line | {"files": {"maps": "maps/item.npz"}}])


@pytest.mark.parametrize(
    ("site", "name"),
    [
        ("up_blocks.3.attentions.1.transformer_blocks.0.attn2", "up 3.1"),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn2:7", "down 0.0:7"),
        ("mid_block.attentions.0.transformer_blocks.0.attn2", "mid"),
        ("blocks.5.attn2", "block 5"),
        ("blocks.12.attn2:3", "block 12:3"),
        ("transformer_blocks.5.attn1", "block 5"),
        ("first", "first"),
    ],
)
def test_layers_are_named_plainly(site, name):
    assert short(site) == name


def test_curves_and_maps_of_a_calibration(capsys):
    book = Codebook.read(sorted(SHIPPED.glob("*.json"))[0])
    calibration(Path("runs/fig1/embedded"), book)
    assert set(books([Path("runs/fig1")])) == {"embedded"}
    assert set(books([Path("runs/fig1/embedded")])) == {book.model}
    assert main(["figure", "freemask/1"]) == 0
    said = capsys.readouterr().out
    assert "mask matching costs" in said and "missing: zeroscope: freemask calibrate" in said
    for part in ("curves", "maps"):
        with Image.open(f"reports/figures/freemask-1-{part}.png") as picture:
            assert min(picture.size) > 200
        assert Path(f"reports/figures/freemask-1-{part}.pdf").read_bytes().startswith(b"%PDF")
    assert "freemask-1-maps.pdf" in Path("reports/figures/freemask-1.tex").read_text()


def test_the_band_of_an_interval_below_zero_has_a_place_on_the_axis():
    axes = Figure().subplots()
    mmc._line(axes, [0, 1], [Estimate(5, -1, 6), Estimate(5, 4, 6)], 0, "black", "a model")
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert 0 < min(heights) < mmc.LEAST and {4, 6} <= set(heights)


@pytest.mark.parametrize("name", names("figure"))
def test_every_figure_names_its_source_and_is_of_an_experiment_that_is_here(name):
    figure = figure_of(name)
    content = choices.content("experiment", figure.experiment)
    assert description(name, "figure") and name.endswith(f"/{figure.source['figure']}") and content["name"]
    if figure.verb == "run":
        assert set(content["variants"]) & set(figure.lines) and SOURCE in figure.lines and figure.kinds
    if figure.verb == "figure":
        assert callable(import_module(f"experiments.figures.{figure.measured}").measured) and not figure.lines


def test_a_file_that_is_no_figure_is_refused():
    given = {"name": "x/1", "title": "", "caption": "", "experiment": "x", "source": {"paper": "X"}}
    with pytest.raises(ValueError, match="no paper and figure"):
        whole(PaperFigure, "figure", given)
    with pytest.raises(ValueError, match="knows no colour"):
        whole(PaperFigure, "figure", given | {"source": {"paper": "X", "figure": 1}, "colour": "red"})


def test_wide_clips_and_missing_strips_are_drawn():
    wide = [np.full((320, 576, 3), shade, np.uint8) for shade in (50, 200)]
    strips = Strips({"a": [wide, None], "b": [None, wide]}, ["one", "two words that are long " * 4])
    draw([Path("x.png")], strips, "caption " * 60)
    with Image.open("x.png") as picture:
        shades = np.asarray(picture.convert("L"))
    assert (shades == 50).mean() > 0.05 and (shades == 200).mean() > 0.05
