"""Figures that are measured while they are drawn: weights of attention, and groups of cells."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.cli.app import main
from experiments.figures import groups, weights
from experiments.figures.drawn import groups as colored
from experiments.figures.setting import Setting
from freemask.attention import modulated
from freemask.errors import UserError
from freemask.methods.regional import Phrases
from freemask.types import QKV, Grid, Site, Where
from tests.given import seeded

TINY = [
    "model=random_image",
    "model.control=0",
    "data.clips=2",
    "data.frames=3",
    "data.size=32",
    "method.steps=2",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def drawn(name, *more):
    return main(["figure", f"st-modulator/{name}", f"change={' '.join(TINY)}", "out=there", *more])


@pytest.mark.parametrize("name", ["7", "17"])
def test_weights_before_and_after_are_drawn(name, capsys):
    assert drawn(name) == 0
    said = capsys.readouterr().out
    assert (
        "purple truck" in said
        and "random_image, 2 steps, 3 frames of 32x32" in said
        and "missing" not in said
    )
    with Image.open(f"there/st-modulator-{name}.png") as picture:
        assert min(picture.size) > 400


def test_groups_and_words_are_drawn(capsys):
    assert drawn("3") == 0
    said = capsys.readouterr().out
    assert "3 groups, cells of 1: " in said and "8 groups, cells of 1: " in said
    for part in ("groups", "words"):
        assert Path(f"there/st-modulator-3-{part}.pdf").is_file()


def test_another_edit_can_be_asked_for_and_one_alone(capsys):
    assert drawn("3", "tasks=[world-10000001-instance]") == 0
    assert "edit world-10000001-instance" in capsys.readouterr().out
    assert drawn("3", "tasks=[world-7]") == 2
    assert "choose one of: world-10000000-instance" in capsys.readouterr().err
    assert drawn("3", "tasks=[world-10000000-instance,world-10000001-instance]") == 2
    assert "shows one edit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["st-modulator/7", "runs=[mine]"], "reads no runs"),
        (["freemask/4", "change=method.steps=2"], "freemask run experiment=freemask/fig4"),
        (["st-modulator/7", "change=method.stepps=2"], "stepps"),
    ],
)
def test_what_is_wrong_gets_one_message(words, said, capsys):
    assert main(["figure", *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown


def test_weights_are_those_of_videograin():
    with pytest.raises(UserError, match="only VideoGrain"):
        weights.measured(Setting.of("st-modulator/fig3", TINY, []), 2)


def random(*shape):
    return torch.randn(shape, generator=seeded(len(shape)), dtype=torch.float64)


def test_what_is_kept_are_the_weights_of_words_and_of_a_cell_over_all_frames():
    site, words = Site("here", "self", 1, look=("all",)), Site("there", "cross", 1)
    grid, frames = Grid(2, 2, 3), 2
    phrases = [Phrases(("a",), ((1, 2),)), Phrases(("b",), ((4,),))]
    kept = weights.Watching(["here", "there"], [5], phrases, [(1, 4)], {"cross": "cond", "self": "cond"})
    q, k = random(1, frames, 2, 6, 4), random(1, 1, 2, 12, 4).expand(-1, frames, -1, -1, -1)
    kept(Where(site, 5, grid, ("uncond", "cond")), "cond", QKV(q, k, k, 0.5), None)
    kept(Where(site, 4, grid, ("uncond", "cond")), "cond", QKV(q, k, k, 0.5), None)  # another time
    kept(Where(site, 5, grid, ("uncond", "cond")), "uncond", QKV(q, k, k, 0.5), None)
    row = torch.softmax(torch.einsum("h d, h m d -> h m", q[0, 1, :, 4], k[0, 0]) * 0.5, -1).mean(0)
    (look,) = kept.looks
    torch.testing.assert_close(look[0].flatten(), row.float())
    text = random(1, frames, 2, 7, 4) + 1
    members = torch.ones(frames, 6, 1, dtype=torch.float64)
    how = modulated.Drawn(
        members, torch.eye(7)[None, :, 4:5].expand(frames, -1, -1).double(), members[..., 0]
    )
    for each in (None, how):
        kept(Where(words, 5, grid, ("uncond", "cond")), "cond", QKV(q, text, text, 0.5), each)
    plain, all_drawn = kept.words
    whole = torch.softmax(torch.einsum("f h n d, f h m d -> f h n m", q[0], text[0]) * 0.5, -1).mean(1)
    torch.testing.assert_close(plain[0].flatten(1), whole[..., [1, 2]].sum(-1).float())
    torch.testing.assert_close(plain[1].flatten(1), whole[..., 4].float())
    assert bool((all_drawn[1] > plain[1]).all()) and kept.regions is not None
    assert tuple(kept.regions.shape) == (1, 2, 2, 3)


def test_how_far_groups_tell_two_regions_apart():
    labels = torch.tensor([[[0, 0, 1, 1], [0, 0, 2, 2]]])
    left, right = (torch.zeros(1, 2, 4) for _ in range(2))
    left[..., :2], right[..., 2:] = 1, 1
    assert groups.mixed(labels, [left, right]) == 0
    assert groups.mixed(torch.zeros_like(labels), [left, right]) == 1
    half = torch.tensor([[[0, 0, 0, 0], [0, 0, 2, 2]]])
    assert groups.mixed(half, [left, right]) == 0.5


def test_groups_are_coloured_by_their_size():
    frames, labels = torch.zeros(1, 3, 4, 4), torch.tensor([[[2, 2], [2, 0]]])
    other = torch.where(labels == 2, 0, 1)
    assert (colored(labels, frames, 1)[0] == colored(other, frames, 1)[0]).all()


def test_keys_of_groups_are_a_frames_own_whatever_the_model_looks_at(monkeypatch):
    seen = []

    def looks(where, qkv):
        seen.append(where.site.look)
        assert qkv.k.shape == qkv.q.shape and not torch.equal(qkv.k[:, 0], qkv.k[:, 1])
        return groups_of_frames(where, qkv)

    groups_of_frames = groups.within_frames
    monkeypatch.setattr(groups, "within_frames", looks)
    change = [*TINY, "model.attention=middle", "model.least_channels=0"]
    found = groups.looks_of(Setting.of("st-modulator/fig3", change, []), [0, 2])
    assert seen and all(seen) and all(len(each) == 2 for each in found.values())
