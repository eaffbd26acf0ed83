"""TokenFlow's matches, without a model: which key frames count how much, little memory, and one layer of both variants
against one that is written out with all similarities at once."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from freemask.diffusion.guidance import of_frames
from freemask.methods import tokenflow_field
from freemask.methods.tokenflow_field import by_chunk, by_distance, chunks, directions, nearest
from freemask.methods.tokenflow_step import Step
from freemask.types import QKV, Given, Grid, Site, Where

SITE = Site("layer.attn1", "self", 1)


# --- which key frames -----------------------------------------------------------------------------------------


def sigmoid(x):
    return float(torch.sigmoid(torch.tensor(x, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("frames", "size", "expected"),
    [(4, 2, [[0, 1], [2, 3]]), (5, 2, [[0, 1], [2, 3], [4]]), (3, 8, [[0, 1, 2]]), (1, 1, [[0]])],
)
def test_chunks(frames, size, expected):
    assert [list(each) for each in chunks(frames, size)] == expected


def test_weights_as_released():
    """The numbers of the card for chunks of 8; the first chunk has no other before it."""
    assert all(by_chunk(frame, 8) == ((0, 1.0),) for frame in range(8))
    for frame, weight in ((8, 0.622), (12, 0.731), (15, 0.687), (20, 0.731)):
        (own, first), (previous, second) = by_chunk(frame, 8)
        assert (own, previous) == (frame // 8, frame // 8 - 1)
        assert first == pytest.approx(weight, abs=1e-3) and first + second == pytest.approx(1)
    assert by_chunk(1, 1) == ((1, pytest.approx(sigmoid(1.0))), (0, pytest.approx(1 - sigmoid(1.0))))


def test_weights_of_the_paper():
    keys = [1, 4]
    assert by_distance(0, keys) == by_distance(1, keys) == ((0, 1.0),)
    assert by_distance(5, keys) == ((1, 1.0),)
    for frame, share in ((2, 1 / 3), (3, 2 / 3), (4, 1.0)):
        near = dict(by_distance(frame, keys))
        assert near[1] == pytest.approx(sigmoid(share)) and near[0] + near[1] == pytest.approx(1)


# --- matches --------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The numbers in the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return out


def test_of_equals_the_first_is_taken_and_length_counts_for_nothing():
    among = directions(torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0], [0.0, 3.0]]))
    tokens = directions(torch.tensor([[5.0, 0.0], [0.0, 0.1], [1.0, 1.0]]))
    assert nearest(tokens, among).tolist() == [1, 0, 0]


def test_matches_in_pieces_are_the_same_and_never_all_at_once(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    tokens, among = (directions(torch.randn(500, 4, generator=rng)) for _ in range(2))
    whole = nearest(tokens, among)
    assert torch.equal(whole, (tokens[:, None] * among).sum(-1).argmax(dim=1))
    monkeypatch.setattr(tokenflow_field, "PIECE", 7 * len(among))
    with Largest() as largest:
        assert torch.equal(nearest(tokens, among), whole)
    assert largest.numbers <= 7 * len(among)


# --- one layer of one step ------------------------------------------------------------------------------------


def layer(frames, tokens=6, width=4, seed=0):
    """Queries, keys, values and inputs of three streams."""
    rng = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(3, frames, 2, tokens, width, generator=rng, dtype=torch.float64) for _ in range(3))
    hidden = torch.randn(3, frames, tokens, 5, generator=rng, dtype=torch.float64)
    where = Where(SITE, 1, Grid(frames, 1, tokens), ("source", "uncond", "cond"))
    return where, QKV(q, k, v, 0.5, hidden)


def softly(q, k, v):
    return torch.softmax(q @ k.transpose(-1, -2) * 0.5, dim=-1) @ v


def written_out(keys, size, variant, at_keys, qkv):
    """All similarities at once, the weights by the distances, frame by frame."""
    frames, tokens = qkv.hidden.shape[1:3]
    left = torch.empty_like(at_keys.v)
    for place in range(len(keys)):
        left[0, place] = softly(at_keys.q[0, place], at_keys.k[0, place], at_keys.v[0, place])
        for stream in (1, 2):
            k, v = (torch.cat(list(each[stream]), dim=1) for each in (at_keys.k, at_keys.v))
            left[stream, place] = softly(at_keys.q[stream, place], k, v)
    alike = torch.cosine_similarity(
        qkv.hidden[0].reshape(-1, 1, 5), at_keys.hidden[0].reshape(1, -1, 5), dim=-1
    )
    found = alike.reshape(frames, tokens, len(keys), tokens).argmax(dim=-1)
    out = torch.empty_like(qkv.v)
    for frame in range(frames):
        if variant == "official":
            one, other = frame // size, frame // size - 1
            centres = {place: abs(frame - place * size - size // 2) for place in (one, other)}
        else:
            one = min((p for p, key in enumerate(keys) if key >= frame), default=len(keys) - 1)
            other = one - 1 if keys[one] >= frame else -1
            centres = {place: abs(frame - keys[place]) for place in (one, other) if place >= 0}
        made = left[:, one][:, :, found[frame, :, one]]
        if other >= 0:
            weight = sigmoid(centres[other] / (centres[one] + centres[other]))
            made = weight * made + (1 - weight) * left[:, other][:, :, found[frame, :, other]]
        out[:, frame] = made
        if variant == "paper":
            out[0, frame] = softly(qkv.q[0, frame], qkv.k[0, frame], qkv.v[0, frame])
    return out


@pytest.mark.parametrize("variant", ["official", "paper"])
@pytest.mark.parametrize(("frames", "size", "keys"), [(6, 2, [1, 2, 4]), (5, 3, [2, 4]), (3, 8, [1])])
def test_a_layer_equals_the_one_written_out(variant, frames, size, keys):
    step = Step(keys, size, variant)
    where, qkv = layer(frames)
    _, at_keys = layer(len(keys), seed=1)
    step.together(where, at_keys)
    made = []
    for part in chunks(frames, size):
        rows = slice(part.start, part.stop)
        some = QKV(qkv.q[:, rows], qkv.k[:, rows], qkv.v[:, rows], 0.5, qkv.hidden[:, rows])
        made.append(step.copied(part, where, some))
    expected = written_out(keys, size, variant, at_keys, qkv)
    torch.testing.assert_close(torch.cat(made, dim=1), expected, atol=1e-12, rtol=0)


def test_copying_makes_no_tensor_of_all_tokens_times_all_tokens():
    """Nothing larger than what comes of it, or than the similarities of two frames."""
    for frames in (4, 8):
        step, (where, qkv) = Step([0, frames - 1], frames // 2, "paper"), layer(frames, tokens=128)
        step.together(*layer(2, tokens=128))
        with Largest() as largest:
            step.copied(range(frames), where, qkv)
        assert largest.numbers <= max(qkv.v.numel(), 128 * 128)


def test_what_there_is_for_each_frame_is_cut():
    given = Given({
        "text": torch.rand(3, 4), "texts": torch.rand(3, 5, 4), "control": torch.rand(3, 3, 8, 8),
        "channels": torch.rand(1, 4, 8, 8), "control_strength": torch.rand(3),
    })  # fmt: skip
    cut = of_frames(given, [2, 0], 3).parts
    for name, part in given.parts.items():
        assert torch.equal(cut[name], part[[2, 0]] if name in ("texts", "control") else part)
