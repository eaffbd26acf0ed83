"""Where optical flow comes from: the data, RAFT, files of every form; and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.config.compose import config_of, plain
from experiments.front.clips import clip_or_name
from freemask.data.frames import FrameRange
from freemask.data.geometry import Geometry
from freemask.data.held import taken
from freemask.data.world import World
from freemask.errors import UserError
from freemask.optical import files, raft
from freemask.optical.ops import warped
from freemask.optical.sources import Auto, Exact, FromFile, Raft
from freemask.types import Clip, OpticalFlow

FORTH = np.random.default_rng(0).normal(size=(2, 2, 12, 20)).astype(np.float32)


def clip(frames=3, flow=None):
    return Clip("bus", torch.zeros(frames, 3, 12, 20), flow=flow)


# --- the data -------------------------------------------------------------------------------------------------


def test_the_world_says_how_its_clips_move():
    """What is seen in the next frame is found there; the flow goes where the clip goes, as long as it is the same."""
    world = World(clips=1)
    known = world.clip(world.tasks()[0])
    flow = Exact()(known, "cpu")
    moved, still = (
        ((warped(known.frames[1:], each) - known.frames[:-1]).abs().mean(1))[flow.seen].mean()
        for each in (flow.forth, torch.zeros_like(flow.forth))
    )
    assert moved < still / 3
    assert clip_or_name(known).flow is known.flow is Auto()(known, "cpu")
    assert taken(known, Geometry(), FrameRange()).flow is known.flow
    assert taken(known, Geometry(), FrameRange(count=4)).flow is None


def test_a_clip_that_does_not_know_its_motion_is_refused():
    for flow in (None, OpticalFlow(torch.zeros(5, 2, 12, 20))):
        with pytest.raises(UserError, match="flow=raft"):
            Exact().check(lambda flow=flow: clip(flow=flow))


# --- RAFT -----------------------------------------------------------------------------------------------------


def test_raft_says_where_to_get_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(raft, "usual", lambda: None)
    for source in (Raft(), Auto()):
        with pytest.raises(UserError, match="raft_large") as refused:
            source.check(clip)
        assert "flow=file" in str(refused.value)
    Auto().check(lambda: clip(flow=OpticalFlow(torch.zeros(2, 2, 12, 20))))
    with pytest.raises(UserError, match="no such file"):
        Raft(str(tmp_path / "raft.pth")).check(clip)


def test_an_estimate_goes_forth_and_knows_what_is_hidden(tmp_path, monkeypatch):
    """A stand-in that sees 2 pixels to the right in each first half, and the same back."""
    asked = []

    def network(a, b):
        asked.append((a, b))
        flow = torch.zeros(2, 2, *a.shape[-2:])
        flow[0, 0], flow[1, 0] = -2.0, 2.0  # from the later frame to the earlier one, and forth
        return flow

    monkeypatch.setattr(raft, "usual", lambda: tmp_path)
    monkeypatch.setattr(raft, "load", lambda *given: network)
    frames = torch.rand(3, 3, 128, 136)
    found = Raft()(replace(clip(), frames=frames), "cpu")
    assert found.origin == "raft_large" and found.forth.shape == (2, 2, 128, 136)
    assert bool((found.forth[:, 0] == 2).all()) and bool((found.forth[:, 1] == 0).all())
    assert bool(found.seen[..., :-2].all()) and not bool(found.seen[..., -2:].any())
    torch.testing.assert_close(asked[0][0][0], frames[1] * 2 - 1)


# --- files ----------------------------------------------------------------------------------------------------


def flo(path, pair):
    _, height, width = pair.shape
    head = files.MAGIC + np.array([width, height], "<i4").tobytes()
    path.write_bytes(head + pair.transpose(1, 2, 0).astype("<f4").tobytes())


def written(folder, form):
    place = folder / "bus"
    if form == "npy":
        np.save(folder / "bus.npy", FORTH)
        return folder / "bus.npy"
    if form == "npz":
        np.savez(folder / "bus.npz", forward=FORTH, backward=-FORTH)
        return folder / "bus.npz"
    for part, sign in (("forward", 1), ("backward", -1)) if form == "both folders" else (("", 1),):
        (place / part).mkdir(parents=True, exist_ok=True)
        for number, pair in zip((2, 10), FORTH, strict=True):
            if form == "npy pairs":
                np.save(place / part / f"{number}.npy", pair)
            else:
                flo(place / part / f"pair{number}.flo", sign * pair)
    return place


@pytest.mark.parametrize("form", ["npy", "npz", "flo", "npy pairs", "both folders"])
def test_every_form_of_a_file_and_the_clips_name_in_its_path(tmp_path, form):
    """Pairs are ordered with numbers counted; with the flow back it is known what is hidden."""
    path = str(written(tmp_path, form)).replace("bus", "{clip}")
    FromFile(path).check(clip)
    found = FromFile(path)(clip(), "cpu")
    assert torch.equal(found.forth, torch.from_numpy(FORTH)) and found.origin.startswith("bus")
    assert (found.seen is not None) == (form in ("npz", "both folders"))


@pytest.mark.parametrize(
    ("frames", "size", "came"), [(4, (12, 20), "2 pairs"), (3, (20, 12), "20x12"), (3, (24, 40), "40")]
)
def test_a_file_that_does_not_fit_says_what_came_and_what_was_expected(tmp_path, frames, size, came):
    source, other = FromFile(str(written(tmp_path, "npy"))), clip(frames)
    other = replace(other, frames=torch.zeros(frames, 3, *size))
    with pytest.raises(UserError, match="does not fit the clip 'bus'") as refused:
        source(other, "cpu")
    assert came in str(refused.value)
    if frames == 3:
        source.check(lambda: other)  # the size is not yet known there
    else:
        with pytest.raises(UserError, match="does not fit"):
            source.check(lambda: other)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.npy", FORTH.transpose(0, 2, 3, 1), "this is no flow"),
        ("x.npy", np.full_like(FORTH, np.nan), "no numbers"),
        ("x.npy", FORTH.astype(int), "int64"),
        ("x.npz", {"flow": FORTH}, "no flow can be read"),
        ("x.npz", {"forward": FORTH, "backward": FORTH[:1]}, "does not belong"),
        ("x.flo", b"PIEH\3\0\0\0\3\0\0\0abcd", "for 3x3"),
        ("x.flo", b"", "no .flo file"),
        ("x.npy", b"torn", "no flow can be read"),
        ("x.mp4", b"", "no file of flow"),
        ("none/x.txt", b"", "holds no flow"),
    ],
    ids=str,
)
def test_what_holds_no_flow_is_refused(tmp_path, name, content, said):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content) if isinstance(content, dict) else np.save(path, content)
    with pytest.raises(UserError, match=said):
        files.read(path if path.parent == tmp_path else path.parent)


def test_flow_is_chosen_by_name_and_its_path_is_plain_text(tmp_path):
    with pytest.raises(UserError, match="flow.path"):
        FromFile()
    config = plain(config_of("edit", ["method=flatten", "flow=file", "flow.path='a/{clip}.npz'"]))
    assert config["method"]["flow"]["path"] == "a/{clip}.npz"
    assert plain(config_of("run", ["method=flatten"]))["method"]["flow"]["_target_"].endswith("Auto")
