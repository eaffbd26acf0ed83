"""Inversions kept on disk: the same numbers, no second run of the network, and no harm from a bad disk."""

import pytest
import torch

from freemask.attention.features import Features
from freemask.attention.record import Keep, Words, heat_of_words
from freemask.backbones.unet3d import UNet3D
from freemask.diffusion.inversions import Inversions, Wish
from freemask.diffusion.loops import invert
from freemask.errors import UserError
from freemask.types import QKV, Grid, Site, Where
from freemask.words import own_columns

PROMPT = "a red car on grass"


@pytest.fixture(scope="module")
def backbone():
    return UNet3D.random(0, max_tokens=20)


class Counting:
    """The backbone, counting how often it is asked."""

    def __init__(self, backbone):
        self.inner, self.calls = backbone, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def predict(self, *args, **kwargs):
        self.calls += 1
        return self.inner.predict(*args, **kwargs)


def latents(backbone, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return backbone.encode(torch.rand(2, 3, 8, 12, generator=rng))


def heat(text, word="car", **limits):
    return heat_of_words(word, text.columns[word], **limits)


def made(store, backbone, x, steps=3, **wish):
    return store.invert(backbone, x, backbone.embed(PROMPT), steps, wish=Wish(**wish) if wish else None)


def test_a_stored_inversion_is_the_same_and_needs_no_network(backbone, tmp_path):
    counting, x = Counting(backbone), latents(backbone)
    expected = invert(backbone, x, backbone.embed(PROMPT), 3)
    text = backbone.embed(PROMPT)
    fresh = made(Inversions(tmp_path), counting, x, keeps=[heat(text)])
    assert counting.calls == 3 and fresh.passes == 3
    again = made(Inversions(tmp_path), counting, x, keeps=[heat(text)])
    assert counting.calls == 3 and again.passes == 0
    for a, b, c in zip(expected, fresh.latents, again.latents, strict=True):
        assert torch.equal(a, b) and torch.equal(b, c)
    first, second = fresh.kept, again.kept
    assert first.all("car").keys() == second.all("car").keys() and len(first.all("car")) > 3
    for key, value in first.all("car").items():
        assert torch.equal(value, second.all("car")[key])


def test_a_keep_gets_only_what_it_asked_for_and_the_whole_is_stored(backbone, tmp_path):
    text, x = backbone.embed(PROMPT), latents(backbone)
    times = backbone.noise_path.times(3)
    some = made(Inversions(tmp_path), backbone, x, keeps=[heat(text, times={times[1]})]).kept
    assert {t for _, t in some.all("car")} == {times[1]}
    counting = Counting(backbone)
    rest = made(Inversions(tmp_path), counting, x, keeps=[heat(text)]).kept
    assert counting.calls == 0 and {t for _, t in rest.all("car")} == set(times)


def test_a_new_word_walks_the_known_inversion_once(backbone, tmp_path):
    text, x = backbone.embed(PROMPT), latents(backbone)
    made(Inversions(tmp_path), backbone, x)
    counting = Counting(backbone)
    walked = made(Inversions(tmp_path), counting, x, keeps=[heat(text, "grass")])
    direct = made(Inversions(), backbone, x, keeps=[heat(text, "grass")]).kept
    assert counting.calls == 3 and walked.passes == 3
    for key, value in direct.all("grass").items():
        torch.testing.assert_close(walked.kept.all("grass")[key], value)


def test_the_share_of_a_word_is_kept_apart_from_its_heat(backbone, tmp_path):
    text, x = backbone.embed(PROMPT), latents(backbone)
    word = text.columns["car"]
    shares = [heat_of_words("share", Words(word, among)) for among in (own_columns(text), (*word, 5))]
    assert [
        made(Inversions(tmp_path), backbone, x, keeps=[each]).passes for each in (heat(text), *shares)
    ] == [3] * 3
    counting = Counting(backbone)
    again = made(Inversions(tmp_path), counting, x, keeps=[heat(text), shares[0]]).kept
    assert counting.calls == 0
    for key, share in again.all("share").items():
        assert (share > again.all("car")[key]).all() and (share < 1).all()


def test_everything_that_matters_is_in_the_key(backbone, tmp_path):
    text, steps = backbone.embed(PROMPT), 2
    others = UNet3D.random(1, max_tokens=20), UNet3D.random(0, dtype="float64", max_tokens=20)
    store, x = Inversions(tmp_path), latents(backbone)
    assert store.invert(backbone, x, text, steps).passes == steps
    assert store.invert(backbone, latents(backbone, 1), text, steps).passes == steps
    assert store.invert(backbone, x, backbone.embed("a red car on sand"), steps).passes == steps
    assert store.invert(backbone, x, text, steps + 1).passes == steps + 1
    for other in others:  # of another model, and in another precision
        assert store.invert(other, x, other.embed(PROMPT), steps).passes == steps
    assert store.invert(backbone, x, text, steps).passes == 0


def test_other_keeps_and_spies_run_the_network_again(backbone, tmp_path):
    x, seen = latents(backbone), []
    made(Inversions(tmp_path), backbone, x)
    keep = Keep("q", lambda where: where.site.role == "self", lambda where, qkv: qkv.q.mean(0))
    found = made(Inversions(tmp_path), backbone, x, keeps=[keep], spy=lambda where, qkv: seen.append(where))
    assert found.passes == 3 and len(seen) == 3 * len(backbone.sites) and found.kept.all("q")


def test_a_damaged_file_is_made_again_with_a_warning(backbone, tmp_path):
    x = latents(backbone)
    made(Inversions(tmp_path), backbone, x)
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="made again"):
        assert made(Inversions(tmp_path), backbone, x).passes == 3


def test_a_disk_that_refuses_is_a_warning(backbone, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.warns(UserWarning, match="could not be stored"):
        assert made(Inversions(blocked), backbone, latents(backbone)).passes == 3


def test_beyond_the_budget_the_oldest_go(backbone, tmp_path):
    one = Inversions(tmp_path)
    made(one, backbone, latents(backbone))
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    small = Inversions(tmp_path, budget_gb=1.5 * size / 1e9)
    made(small, backbone, latents(backbone, 1))
    assert made(small, backbone, latents(backbone, 1)).passes == 0
    assert made(small, backbone, latents(backbone)).passes == 3
    with pytest.raises(UserError):
        Inversions(tmp_path, budget_gb=0)


def where(site="a", t=1):
    return Where(Site(site, "self", 1), t, Grid(1, 2, 2), ("source",))


def qkv(seed):
    rng = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, 1, 2, 4, 3, generator=rng) for _ in range(3))
    return QKV(q=q, k=k, v=v, scale=0.5)


@pytest.mark.parametrize("place", ["device", "host", "disk"])
def test_features_come_back_as_they_went(place, tmp_path):
    with Features(place, device=torch.device("cpu"), folder=tmp_path) as kept:
        for t in (1, 21, 41):
            for seed, site in enumerate(("a", "b")):
                kept.put(where(site, t), qkv(seed + t), values=t == 21)
        for t, following in ((41, 21), (21, 1), (1, None)):
            for seed, site in enumerate(("a", "b")):
                found, expected = kept.get(where(site, t), following), qkv(seed + t)
                assert torch.equal(found.q, expected.q) and torch.equal(found.k, expected.k)
                assert found.scale == 0.5 and (t != 21 or torch.equal(found.v, expected.v))
        assert kept.bytes == 3 * 2 * 2 * 24 * 4 + 2 * 24 * 4
        with pytest.raises(KeyError, match="t = 61"):
            kept.get(where("a", 61))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_features_as_whole_numbers_take_less_and_come_back_nearly(dtype, tmp_path):
    rng = torch.Generator().manual_seed(3)
    q, k = (torch.randn(1, 2, 2, 40, 64, generator=rng).to(dtype) for _ in range(2))
    q[0, 0, 0, 0] = 0  # a row without a size
    q[0, 0, 0, 1] *= 30  # and a large one, which costs the others nothing
    given = QKV(q=q, k=k[:, :1].expand(-1, 2, -1, -1, -1), v=k, scale=0.5)
    with Features("disk", device=torch.device("cpu"), folder=tmp_path, form="int8") as kept:
        kept.put(where(), given, values=True)
        assert kept.bytes == (2 + 1 + 2) * 2 * 40 * (64 + dtype.itemsize)
        found = kept.get(where())
    for name in ("q", "k", "v"):
        back, before = getattr(found, name), getattr(given, name)
        assert back.dtype == dtype and back.shape == before.shape
        off, size = (back - before).float().norm(dim=-1), before.float().norm(dim=-1)
        assert bool((off <= 0.012 * size).all()) and float((off / size.clamp(min=1e-9)).max()) > 0.002
    with pytest.raises(UserError, match="cannot be kept so"):
        Features("host", device=torch.device("cpu"), form="int4")


def test_keys_that_all_frames_share_are_kept_once():
    whole = qkv(0)
    rng = torch.Generator().manual_seed(5)
    wide = QKV(
        q=torch.randn(1, 6, 2, 4, 3, generator=rng),
        k=whole.k.expand(-1, 6, -1, -1, -1),
        v=whole.v.expand(-1, 6, -1, -1, -1),
        scale=0.5,
    )
    with Features("host", device=torch.device("cpu")) as kept:
        kept.put(where(), wide, values=True)
        assert kept.bytes == (6 + 1 + 1) * 24 * 4
        found = kept.get(where())
        assert torch.equal(found.k, wide.k) and torch.equal(found.v, wide.v) and torch.equal(found.q, wide.q)


def test_features_beyond_the_budget_say_what_to_do():
    with (
        Features("host", 1e-7, device=torch.device("cpu")) as kept,
        pytest.raises(UserError, match="features=recompute"),
    ):
        kept.put(where(), qkv(0), values=False)
