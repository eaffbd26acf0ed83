"""Video files, folders and pictures: the right frames the right way up, or an error that says why not."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from freemask.data import Files, FrameRange, Geometry, OneClip, open_clip
from freemask.data.open import open_footage
from freemask.data.write import to_bytes, write_frames, write_video
from freemask.errors import UserError

HIGH, WIDE = 48, 80
RED, GREEN, BLUE, YELLOW = (250, 5, 5), (5, 240, 5), (5, 5, 245), (230, 220, 10)


def quarters(high: int = HIGH, wide: int = WIDE) -> np.ndarray:
    """Red and green above blue and yellow: any turn, flip or swap of channels shows."""
    picture = np.zeros((high, wide, 3), np.uint8)
    picture[: high // 2, : wide // 2], picture[: high // 2, wide // 2 :] = RED, GREEN
    picture[high // 2 :, : wide // 2], picture[high // 2 :, wide // 2 :] = BLUE, YELLOW
    return picture


def corners(picture: torch.Tensor) -> list[tuple[int, ...]]:
    """Colours near the four corners, reading order."""
    high, wide = picture.shape[-2:]
    places = [(6, 6), (6, wide - 7), (high - 7, 6), (high - 7, wide - 7)]
    return [tuple((picture[:, y, x] * 255).round().int().tolist()) for y, x in places]


def assert_corners(picture: torch.Tensor, expected: Sequence[tuple[int, ...]], within: int = 8) -> None:
    found = corners(picture)
    assert np.abs(np.array(found) - np.array(expected)).max() <= within, found


def encode(path: Path, pictures: Sequence[np.ndarray], codec: str = "libx264", **options: object) -> Path:
    """Write a test video. Options: pix_fmt, rate, pts (in thousandths), turn, aspect, trc, layout."""
    layout, pts = str(options.get("layout", "rgb24")), options.get("pts")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=options.get("rate", 10))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = str(options.get("pix_fmt", "yuv420p"))
        stream.options = {"crf": "4"} if codec == "libx264" else {}
        if "turn" in options:
            stream.set_display_rotation(options["turn"])
        if "matrix" in options:
            stream.set_display_matrix(options["matrix"])
        if "aspect" in options:
            stream.codec_context.sample_aspect_ratio = options["aspect"]
        if "trc" in options:
            stream.codec_context.color_trc = options["trc"]
        if pts:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format=layout)
            if pts:
                frame.pts, frame.time_base = pts[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def greys(count: int, size: int = 32) -> list[np.ndarray]:
    """Frame i has the grey value 20 i."""
    return [np.full((size, size, 3), 20 * index, np.uint8) for index in range(count)]


def order(clip_frames: torch.Tensor) -> list[int]:
    return [round(float(frame.mean()) * 255 / 20) for frame in clip_frames]


def refused(call: Callable[[], object], *words: str) -> str:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    for word in words:
        assert word in text, text
    return text


# ---- videos


def test_colours_orientation_and_rate(tmp_path: Path) -> None:
    clip = open_clip(encode(tmp_path / "a.mp4", [quarters()] * 3, rate=12))
    assert clip.frames.shape == (3, 3, HIGH, WIDE) and clip.fps == 12 and clip.id == "a"
    assert clip.frames.dtype == torch.float32
    assert_corners(clip.frames[0], [RED, GREEN, BLUE, YELLOW])


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (90, [GREEN, YELLOW, RED, BLUE]),
        (180, [YELLOW, BLUE, GREEN, RED]),
        (270, [BLUE, RED, YELLOW, GREEN]),
    ],
)
def test_rotation_is_applied(tmp_path: Path, turn: int, expected: list[tuple[int, ...]]) -> None:
    """The container asks for a counter-clockwise turn."""
    frames = open_clip(encode(tmp_path / "r.mp4", [quarters()] * 2, turn=turn)).frames
    assert frames.shape[-2:] == ((WIDE, HIGH) if turn != 180 else (HIGH, WIDE))
    assert_corners(frames[0], expected)


def test_phone_style_matrix_bytes(tmp_path: Path) -> None:
    """The same by bytes as phones write them: the matrix of the track header for 'turn clockwise'."""
    path = encode(tmp_path / "p.mp4", [quarters()] * 2)
    raw, one = path.read_bytes(), 1 << 16
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    place = raw.index(plain, raw.index(b"tkhd"))
    clockwise = struct.pack(">9i", 0, one, 0, -one, 0, 0, HIGH * one, 0, 1 << 30)
    path.write_bytes(raw[:place] + clockwise + raw[place + 36 :])
    assert_corners(open_clip(path).frames[0], [BLUE, RED, YELLOW, GREEN])


def test_mirrored_and_slanted_matrices(tmp_path: Path) -> None:
    one = 1 << 16
    mirror = [-one, 0, 0, 0, one, 0, 0, 0, 1 << 30]
    frames = open_clip(encode(tmp_path / "m.mp4", [quarters()] * 2, matrix=mirror)).frames
    assert_corners(frames[0], [GREEN, RED, YELLOW, BLUE])
    slanted = encode(tmp_path / "s.mp4", [quarters()] * 2, turn=45)
    refused(lambda: open_clip(slanted), "quarter turn")


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name"),
    [
        ("libx264", "yuv420p10le", "a.mp4"),
        ("libx264", "yuvj420p", "b.mp4"),
        ("ffv1", "yuv444p12le", "c.mkv"),
        ("libvpx-vp9", "yuv420p", "d.webm"),
        ("mpeg4", "yuv420p", "e.avi"),
        ("gif", "rgb8", "f.gif"),
    ],
)
def test_depths_and_codecs(tmp_path: Path, codec: str, pix_fmt: str, name: str) -> None:
    clip = open_clip(encode(tmp_path / name, [quarters()] * 3, codec, pix_fmt=pix_fmt))
    assert clip.frames.shape == (3, 3, HIGH, WIDE)
    assert_corners(clip.frames[0], [RED, GREEN, BLUE, YELLOW], within=40 if pix_fmt == "rgb8" else 12)


def test_ten_bits_are_not_cut_to_eight(tmp_path: Path) -> None:
    ramp = np.linspace(20000, 30000, 64 * 64).reshape(64, 64, 1).repeat(3, 2).astype(np.uint16)
    path = encode(tmp_path / "deep.mkv", [ramp], "ffv1", pix_fmt="gbrp10le", layout="rgb48le")
    frames = open_clip(path).frames
    assert len(frames[0, 0].unique()) > 120  # eight bits would give 40
    assert float(frames.mean()) == pytest.approx(25000 / 65535, abs=0.002)


def test_alpha_is_laid_over_black(tmp_path: Path) -> None:
    half = np.dstack([quarters(), np.full((HIGH, WIDE), 128, np.uint8)])
    halved = [tuple(value // 2 for value in colour) for colour in (RED, GREEN, BLUE, YELLOW)]
    mov = encode(tmp_path / "a.mov", [half] * 2, "qtrle", pix_fmt="argb", layout="rgba")
    webm = encode(tmp_path / "a.webm", [half] * 2, "libvpx-vp9", pix_fmt="yuva420p", layout="rgba")
    for path in (mov, webm):
        assert_corners(open_clip(path).frames[0], halved, within=8)


def test_odd_sizes(tmp_path: Path) -> None:
    path = encode(tmp_path / "odd.mkv", [quarters(47, 81)] * 2, "ffv1", pix_fmt="yuv420p")
    frames = open_clip(path).frames
    assert frames.shape[-2:] == (47, 81)
    assert_corners(frames[0], [RED, GREEN, BLUE, YELLOW])


def test_non_square_pixels_become_square(tmp_path: Path) -> None:
    path = encode(tmp_path / "wide.mp4", [quarters()] * 2, aspect=Fraction(3, 2))
    assert open_clip(path).frames.shape[-2:] == (HIGH, WIDE * 3 // 2)


def test_high_dynamic_range_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "hdr.mp4", [quarters()] * 2, pix_fmt="yuv420p10le", trc=16)
    refused(lambda: open_clip(path), "PQ", "tone-map")


def test_frame_choice(tmp_path: Path) -> None:
    path = encode(tmp_path / "g.mp4", greys(12), rate=12)
    assert order(open_clip(path, frames=FrameRange(start=2, stride=3, count=3)).frames) == [2, 5, 8]
    assert order(open_clip(path, frames=FrameRange(start=9)).frames) == [9, 10, 11]
    slow = open_clip(path, frames=FrameRange(fps=4))
    assert order(slow.frames) == [0, 3, 6, 9] and slow.fps == 4
    assert open_clip(path, frames=FrameRange(stride=2)).fps == 6


def test_variable_frame_rate_follows_time(tmp_path: Path) -> None:
    pts = [0, 100, 150, 200, 600, 1000, 1100, 1200]
    path = encode(tmp_path / "v.mkv", greys(8), "ffv1", pix_fmt="bgr0", pts=pts)
    assert order(open_clip(path).frames) == list(range(8))
    assert order(open_clip(path, frames=FrameRange(fps=5, count=6)).frames) == [0, 3, 3, 4, 4, 5]


def test_where_no_number_is_asked_for_a_short_clip_is_taken_whole(tmp_path: Path) -> None:
    few = FrameRange(count="auto", stride=2)
    for length, taken in ((5, (0, 2, 4)), (20, tuple(range(0, 16, 2)))):
        path = encode(tmp_path / f"{length}.mkv", (greys(12) + greys(12))[:length], "ffv1", pix_fmt="bgr0")
        assert open_footage(path, frames=few).indices == taken
    Image.fromarray(quarters()).save(tmp_path / "one.png")
    assert len(open_clip(tmp_path / "one.png", frames=few).frames) == 1
    late = FrameRange(count="auto", start=5)
    refused(lambda: open_clip(tmp_path / "5.mkv", frames=late), "too short", "5 frames")


def test_too_short_says_how_many(tmp_path: Path) -> None:
    path = encode(tmp_path / "g.mp4", greys(5))
    refused(lambda: open_clip(path, frames=FrameRange(count=8)), "too short", "5 frames", "at least 8")
    refused(lambda: open_clip(path, frames=FrameRange(start=5)), "too short", "5 frames")
    refused(lambda: open_clip(path, frames=FrameRange(stride=3, count=3)), "at least 7")
    refused(lambda: open_clip(path, frames=FrameRange(fps=2, count=4)), "at fps=2")
    refused(lambda: open_clip(path, frames=FrameRange(fps=30)), "at most 10")


@pytest.mark.parametrize(
    "bad", [{"start": -1}, {"stride": 0}, {"count": 0}, {"fps": 0}, {"fps": float("nan")}]
)
def test_impossible_choices(bad: dict[str, float]) -> None:
    refused(lambda: FrameRange(**bad), next(iter(bad)))


def test_size_that_changes_within_the_file(tmp_path: Path) -> None:
    """Two encoders write into one stream; the part before the change may be used."""
    path, pts = tmp_path / "both.ts", 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        other = av.CodecContext.create("mpeg2video", "w")
        other.width = other.height = 48
        other.pix_fmt, other.framerate, other.time_base = "yuv420p", 10, Fraction(1, 10)
        for encoder, size in ((stream, 32), (other, 48)):
            frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in greys(4, size)]
            for frame in [*frames, None]:
                if frame is not None:
                    frame.pts, frame.time_base, pts = pts, Fraction(1, 10), pts + 1
                for packet in encoder.encode(frame):
                    packet.stream = stream
                    container.mux(packet)
    refused(lambda: open_clip(path), "change size", "48x48", "32x32")
    assert len(open_clip(path, frames=FrameRange(count=3)).frames) == 3


def test_sound_alone(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    refused(lambda: open_clip(path), "no pictures", "audio")


def test_empty_false_and_frameless_files(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", greys(3))
    (tmp_path / "empty.mp4").touch()
    refused(lambda: open_clip(tmp_path / "empty.mp4"), "empty", "0 bytes")
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    refused(lambda: open_clip(tmp_path / "noise.mp4"), "noise.mp4")
    (tmp_path / "text.mp4").write_text("this is not a film\n" * 50)
    refused(lambda: open_clip(tmp_path / "text.mp4"), "text.mp4")
    Image.fromarray(quarters()).save(tmp_path / "picture.png")
    (tmp_path / "picture.png").rename(tmp_path / "picture.mp4")
    refused(lambda: open_clip(tmp_path / "picture.mp4"), "not a video file")
    whole.rename(tmp_path / "film.png")
    refused(lambda: open_clip(tmp_path / "film.png"), "not a picture")
    with av.open(str(tmp_path / "none.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    refused(lambda: open_clip(tmp_path / "none.mkv"), "none.mkv")


def noisy(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 255, (count, 64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_cut_off_and_damaged(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, noisy(20))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * 0.6)])
    refused(lambda: open_clip(path), name)
    hurt = bytearray(raw)
    for place in range(len(raw) // 3, len(raw) // 2, 97):
        hurt[place] ^= 0xFF
    path.write_bytes(bytes(hurt))
    refused(lambda: open_clip(path), name)


def test_cut_with_the_index_in_front(tmp_path: Path) -> None:
    """Such a file opens well; the whole part may be used, more may not."""
    with av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for picture in noisy(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    path = tmp_path / "f.mp4"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    refused(lambda: open_clip(path), "damaged or cut off")
    assert len(open_clip(path, frames=FrameRange(count=4)).frames) == 4


def test_names(tmp_path: Path) -> None:
    encode(tmp_path / "holiday.mp4", greys(2))
    refused(lambda: open_clip(tmp_path / "holidy.mp4"), "did you mean 'holiday.mp4'?")
    (tmp_path / "notes.pdf").write_text("x")
    refused(lambda: open_clip(tmp_path / "notes.pdf"), "neither a video nor a picture", ".pdf")


# ---- folders and pictures


def test_natural_order_and_junk(tmp_path: Path) -> None:
    for index, picture in enumerate(greys(12)):
        Image.fromarray(picture).save(tmp_path / f"frame{index}.png")
    for name in (".DS_Store", "Thumbs.db", "prompt.txt"):
        (tmp_path / name).write_text("x")
    clip = open_clip(tmp_path, frames=FrameRange(folder_fps=24))
    assert order(clip.frames) == list(range(12)) and clip.fps == 24


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
def test_picture_formats(tmp_path: Path, ending: str) -> None:
    Image.fromarray(quarters()).save(tmp_path / f"a.{ending}", **({"quality": 95} if ending != "png" else {}))
    clip = open_clip(tmp_path / f"a.{ending}")
    assert clip.frames.shape == (1, 3, HIGH, WIDE)
    assert_corners(clip.frames[0], [RED, GREEN, BLUE, YELLOW], within=12)


def test_picture_modes(tmp_path: Path) -> None:
    deep = np.full((20, 30), 1000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert open_clip(tmp_path / "deep.png").frames.unique().tolist() == [pytest.approx(1000 / 65535)]
    Image.fromarray(quarters()).quantize(8).save(tmp_path / "palette.png")
    assert_corners(open_clip(tmp_path / "palette.png").frames[0], [RED, GREEN, BLUE, YELLOW])
    Image.new("L", (30, 20), 51).save(tmp_path / "grey.png")
    assert open_clip(tmp_path / "grey.png").frames.unique().tolist() == [pytest.approx(0.2)]
    Image.new("RGBA", (30, 20), (255, 255, 255, 51)).save(tmp_path / "clear.png")
    assert open_clip(tmp_path / "clear.png").frames.unique().tolist() == [pytest.approx(0.2)]


def test_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned clockwise
    Image.fromarray(quarters()).save(tmp_path / "phone.jpg", exif=exif, quality=95)
    assert_corners(open_clip(tmp_path / "phone.jpg").frames[0], [BLUE, RED, YELLOW, GREEN], within=12)


def test_folders_that_are_no_clip(tmp_path: Path) -> None:
    refused(lambda: open_clip(tmp_path), "holds no pictures")
    Image.fromarray(quarters()).save(tmp_path / "0.png")
    Image.fromarray(quarters(32, 32)).save(tmp_path / "1.png")
    refused(lambda: open_clip(tmp_path), "differ in size", "1.png is 32x32")
    (tmp_path / "1.png").unlink()
    Image.fromarray(quarters()).save(tmp_path / "0.jpg")
    refused(lambda: open_clip(tmp_path), "two frames of one name")
    (tmp_path / "0.jpg").rename(tmp_path / "film.mp4")
    refused(lambda: open_clip(tmp_path), "not a frame", "film.mp4")
    (tmp_path / "film.mp4").unlink()
    (tmp_path / "more").mkdir()
    refused(lambda: open_clip(tmp_path), "more/")


def test_broken_pictures(tmp_path: Path) -> None:
    Image.fromarray(noisy(1)[0]).save(tmp_path / "a.jpg")
    raw = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(raw[: len(raw) // 2])
    refused(lambda: open_clip(tmp_path), "damaged", "a.jpg")
    (tmp_path / "a.jpg").write_bytes(b"")
    refused(lambda: open_clip(tmp_path), "empty file")
    first, *rest = [Image.fromarray(picture) for picture in greys(3)]
    first.save(tmp_path / "moving.webp", save_all=True, append_images=rest)
    refused(lambda: open_clip(tmp_path / "moving.webp"), "animation")


# ---- geometry


@pytest.mark.parametrize(
    ("geometry", "size"),
    [
        (Geometry(), (48, 80)),
        (Geometry(multiple=32), (64, 96)),
        (Geometry(multiple=32, crop="center"), (32, 64)),
        (Geometry(short_side=24), (24, 40)),
        (Geometry(short_side=64, multiple=64), (64, 128)),
        (Geometry(height=96, multiple=8), (96, 160)),
        (Geometry(width=40), (24, 40)),
        (Geometry(height=32, width=32), (32, 32)),
        (Geometry(height=32, width=64, crop="center"), (32, 64)),
        (Geometry(short_side=16, crop="square"), (16, 16)),
        (Geometry(crop="square", multiple=32), (64, 64)),
    ],
)
def test_sizes(geometry: Geometry, size: tuple[int, int]) -> None:
    frames = torch.rand(2, 3, 48, 80)
    masks = frames[:, 0] > 0.5
    assert geometry.frames(frames).shape == (2, 3, *size)
    assert geometry.masks(masks).shape == (2, *size)
    turned = geometry.frames(frames.transpose(-1, -2).contiguous())
    if geometry.height is None and geometry.width is None:
        assert turned.shape[-2:] == size[::-1]


def test_masks_and_frames_stay_together() -> None:
    """A white disc and its mask: after any geometry the mask is where the disc is."""
    y, x = torch.meshgrid(torch.arange(90), torch.arange(160), indexing="ij")
    disc = ((y - 30) ** 2 + (x - 100) ** 2 < 20**2)[None]
    frames = disc[:, None].float().expand(-1, 3, -1, -1).contiguous()
    for crop in ("none", "center", "square"):
        geometry = Geometry(short_side=48, crop=crop, multiple=16)
        differ = (geometry.frames(frames)[:, 0] > 0.5) != geometry.masks(disc)
        assert differ.float().mean() < 0.004
    untouched = Geometry(multiple=10).frames(frames)
    assert torch.equal(untouched, frames)


def test_center_cuts_and_does_not_stretch() -> None:
    frames = torch.zeros(1, 3, 40, 80)
    frames[..., 20:60] = 1
    assert float(Geometry(height=20, width=20, crop="center").frames(frames).min()) > 0.99
    assert float(Geometry(height=20, width=20).frames(frames).min()) < 0.01


def test_geometries_that_cannot_be() -> None:
    refused(lambda: Geometry(crop="centre"), "did you mean 'center'")
    refused(lambda: Geometry(short_side=100, multiple=64), "64 or 128")
    refused(lambda: Geometry(short_side=64, height=64), "twice")
    refused(lambda: Geometry(height=64, width=32, crop="square"), "not square")
    refused(lambda: Geometry(height=-8), "above 0")
    refused(lambda: Geometry(short_side=100).fitted(multiple=64, native=(64, 64)), "64 or 128")


def test_fitted_to_a_model() -> None:
    assert Geometry().fitted(multiple=8, native=(320, 576)) == Geometry(short_side=320, multiple=8)
    assert Geometry(height=64).fitted(multiple=8, native=(320, 576)) == Geometry(height=64, multiple=8)


# ---- writing


def test_written_video_comes_back(tmp_path: Path) -> None:
    frames = torch.from_numpy(quarters(49, 81)).permute(2, 0, 1)[None].repeat(5, 1, 1, 1) / 255
    assert write_video(tmp_path / "out.mp4", frames, 29.97) == (50, 82)
    back = open_clip(tmp_path / "out.mp4")
    assert back.frames.shape == (5, 3, 50, 82) and back.fps == pytest.approx(29.97, abs=0.01)
    assert_corners(back.frames[0], [RED, GREEN, BLUE, YELLOW])
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    refused(lambda: write_video(tmp_path / "out.avi", frames, 8), ".mp4")


def test_written_frames_are_exact(tmp_path: Path) -> None:
    frames = torch.rand(4, 3, 9, 7)
    write_frames(tmp_path, frames)
    write_frames(tmp_path, frames[:3])
    assert np.array_equal(to_bytes(open_clip(tmp_path).frames), to_bytes(frames[:3]))


# ---- one clip, and the real ones


def test_one_clip_in_place(tmp_path: Path) -> None:
    path = encode(tmp_path / "my clip.mp4", greys(4))
    source = OneClip(path, {"source": "a grey wall, slowly ", "target": "a blue wall, slowly "})
    (task,) = source.tasks()
    assert (task.id, task.words, task.kind) == ("my-clip", {"grey": "blue"}, "attribute")
    assert task.source == "a grey wall, slowly " and len(source.clip(task).frames) == 4
    assert source.region(task) is None and source.oracle(task) is None
    style = OneClip(path, {"source": "a wall", "target": "a wall, oil painting", "words": None})
    assert style.tasks()[0].kind == "style"
    wrong = {"source": "a wall", "target": "a house", "words": {"wal": "house"}, "kind": "shape"}
    refused(lambda: OneClip(path, wrong), "'wal'", "a, wall")


def test_real_clips_through_the_files_source(shared: Path) -> None:
    geometry, frames = Geometry(short_side=64), FrameRange(count=8)
    root = shared / "clips"
    patterns = ["frames/*", "videos/*"]
    source = Files(root, root / "prompts.yaml", clips=patterns, geometry=geometry, frames=frames)
    assert len(source.tasks()) == 9
    for task in source.tasks():
        clip = source.clip(task)
        assert clip.frames.shape == (8, 3, 64, 64), task.clip
        assert 0.1 < float(clip.frames.mean()) < 0.9 and float(clip.frames.std()) > 0.05
        assert source.region(task) is None
