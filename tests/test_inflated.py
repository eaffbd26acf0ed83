"""Inflated2D: by frames it equals the library, across frames a slow written-out version, and the authors' numbers."""

import json

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file

from freemask.attention.math import attend, probabilities
from freemask.attention.rewire import entries, references
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.diffusion.guidance import cfg
from freemask.diffusion.loops import invert
from freemask.diffusion.noise_paths import CLEAN
from freemask.errors import UserError
from freemask.types import NO_TAPS, Backbone, Taps
from tests.given import given

BOTH = ("uncond", "cond")
# Frames seen by frame f of F, written out by hand for F = 5: the middle one is number 2.
SEEN = {
    "middle": [[2]] * 5,
    "self_and_middle": [[0, 2], [1, 2], [2, 2], [3, 2], [4, 2]],
    "first_and_previous": [[0, 0], [0, 0], [1, 0], [2, 0], [3, 0]],
    "all": [[0, 1, 2, 3, 4]] * 5,
    "window": [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]],
    "frame": [[0], [1], [2], [3], [4]],
    "last, 2": [[4, 2], [4, 3], [4, 4], [4, 4], [4, 4]],
}
LISTS = {"last, 2": ["last", 2]}


def random(attention="middle", **options):
    attention = LISTS.get(attention, attention) if isinstance(attention, str) else attention
    return Inflated2D.random(0, dtype="float64", max_tokens=20, attention=attention, **options)


@pytest.fixture(scope="module")
def backbone():
    return random()


def inputs(size=(8, 8), streams=2, frames=5):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(streams, frames, 4, *size, generator=rng, dtype=torch.float64)
    return x, torch.randn(streams, 20, 16, generator=rng, dtype=torch.float64)


class Slow:
    """Self-attention with the softmax written out, frame by frame, for a single clip."""

    def __init__(self, seen):
        self.seen = seen

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None):
        text = encoder_hidden_states
        out = []
        for frame, looked in enumerate(self.seen):
            other = torch.cat([hidden[i] for i in looked]) if text is None else text[frame]
            heads = []
            for rows in torch.arange(attn.inner_dim).chunk(attn.heads):
                q, k, v = (
                    given @ layer.weight[rows].T
                    for given, layer in ((hidden[frame], attn.to_q), (other, attn.to_k), (other, attn.to_v))
                )
                heads.append(torch.softmax(q @ k.T / len(rows) ** 0.5, dim=1) @ v)
            out.append(attn.to_out[0](torch.cat(heads, dim=1)))
        return torch.stack(out)


class SlowNorm(torch.nn.Module):
    """Group norm over channels of a group, all frames and all pixels of a single clip."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        out = torch.empty_like(x)
        for rows in torch.arange(x.shape[1]).chunk(self.norm.num_groups):
            part = x[:, rows]
            spread = ((part - part.mean()) ** 2).mean() + self.norm.eps
            scaled = (part - part.mean()) / spread.sqrt()
            out[:, rows] = scaled * self.norm.weight[rows, None, None] + self.norm.bias[rows, None, None]
        return out


def library(seen=None, *, shared=False, least=0):
    """The same network, as the library makes it; with slow attention and norms where asked."""
    unet = tiny.parts(0, torch.float64, "epsilon", 20, image=True).unet.eval()
    for name, module in list(unet.named_modules()):
        if seen is not None and name.endswith("attn1") and module.query_dim >= least:
            module.set_processor(Slow(seen))
        if shared and name.endswith(("norm1", "norm2", "conv_norm_out")) and "transformer" not in name:
            parent, _, leaf = name.rpartition(".")
            setattr(unet.get_submodule(parent), leaf, SlowNorm(module))
    return unet


def by_the_library(unet, x, t, text):
    """One clip at a time, frames as pictures of a batch."""
    with torch.no_grad():
        clips = [unet(c, t, w.expand(len(c), -1, -1)).sample for c, w in zip(x, text, strict=True)]
    return torch.stack(clips)


def close(ours, theirs, atol=1e-12):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize(("frames", "size"), [(1, (8, 8)), (1, (9, 5)), (2, (10, 6)), (8, (9, 5))])
def test_frame_by_frame_it_is_the_librarys_network(frames, size):
    x, text = inputs(size, frames=frames)
    expected = by_the_library(library(), x, 500, text)
    alone = random("frame", shared_norm=False)
    close(alone.predict(x, 500, given(text, BOTH)), expected)
    taps = Taps(lambda _, qkv: attend(qkv), dict.fromkeys(alone.features, lambda _, maps: maps))
    close(alone.predict(x, 500, given(text, BOTH), taps=taps), expected)


def test_a_single_frame_is_a_picture_whatever_the_attention():
    x, text = inputs((10, 6), frames=1)
    expected = by_the_library(library(), x, 500, text)
    for attention in ("middle", "first_and_previous", "all", "frame"):
        close(random(attention, least_channels=0).predict(x, 500, given(text, BOTH)), expected)


@pytest.mark.parametrize("attention", SEEN)
def test_attention_across_frames_against_a_slow_one(attention, monkeypatch):
    x, text = inputs((10, 6))
    expected = by_the_library(library(SEEN[attention]), x, 500, text)
    ours = random(attention, least_channels=0, shared_norm=False)
    close(ours.predict(x, 500, given(text, BOTH)), expected)
    monkeypatch.setattr(ours, "attention_slicing", 1)
    close(ours.predict(x, 500, given(text, BOTH)), expected)
    if attention != "frame":
        assert (expected - by_the_library(library(), x, 500, text)).abs().max() > 1e-4


def test_shared_norms_and_narrow_layers_against_a_slow_network(backbone):
    x, text = inputs((9, 5))
    expected = by_the_library(library(SEEN["middle"], shared=True, least=16), x, 500, text)
    close(backbone.predict(x, 500, given(text, BOTH)), expected)
    for other in ({"shared_norm": False}, {"least_channels": 0}, {"least_channels": 17}):
        changed = random(**other)
        assert (changed.predict(x, 500, given(text, BOTH)) - expected).abs().max() > 1e-4
        assert changed.identity != backbone.identity
    assert "stays within each frame" in random(least_channels=17).describe()["warnings"][-1]
    assert not backbone.describe()["warnings"] and backbone.describe()["layers across frames"] == 11


def test_streams_are_independent(backbone):
    x, text = inputs(streams=3)
    names = ("source", "uncond", "cond")
    together = backbone.predict(x, 300, given(text, names))
    for i, stream in enumerate(names):
        close(together[i], backbone.predict(x[i, None], 300, given(text[i, None], (stream,)))[0])
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("attention", "looked"), [("middle", 1), ("first_and_previous", 2), ("all", 5)])
def test_taps_see_grids_and_the_keys_of_other_frames(attention, looked):
    backbone = random(attention)
    x, text = inputs((9, 5))
    seen = []

    def look(where, qkv):
        f, h, w = where.grid
        assert (f, h, w) == (5, *(-(-side // where.site.stride) for side in (9, 5)))
        assert qkv.q.shape[:2] == (2, 5) and qkv.q.shape[3] == h * w
        frames = looked if where.site.look else 1
        assert qkv.k.shape[3] == (20 if where.site.role == "cross" else frames * h * w)
        assert qkv.hidden.shape[:3] == (2, 5, h * w)
        seen.append(where.site.name)
        return attend(qkv)

    plain = backbone.predict(x, 77, given(text, BOTH))
    close(backbone.predict(x, 77, given(text, BOTH), taps=Taps(look)), plain, atol=0)
    assert seen == list(backbone.sites)
    kinds = [site.role for site in backbone.sites.values()]
    assert (kinds.count("cross"), kinds.count("self"), len(kinds)) == (16, 16, 32)
    assert isinstance(backbone, Backbone)


def test_keys_that_all_frames_share_exist_once():
    backbone = random("all", least_channels=0)
    x, text = inputs(streams=1)
    copies = []

    def look(where, qkv):
        if where.site.role == "self":
            copies.append(qkv.k.untyped_storage().nbytes() // (qkv.q.numel() * qkv.q.element_size()))
        return attend(qkv)

    backbone.predict(x, 9, given(text, ("source",)), taps=Taps(look))
    assert copies == [1] * 16


def test_an_exception_in_a_tap_leaves_nothing_behind(backbone):
    x, text = inputs()
    expected = backbone.predict(x, 9, given(text, BOTH))

    def fail(where, qkv):
        if "up_blocks" in where.site.name:
            raise ZeroDivisionError
        return attend(qkv)

    with pytest.raises(ZeroDivisionError):
        backbone.predict(x, 9, given(text, BOTH), taps=Taps(fail))
    close(backbone.predict(x, 9, given(text, BOTH)), expected, atol=0)
    with pytest.raises(RuntimeError, match="outside backbone.predict"):
        by_the_library(backbone.unet, x, 9, text)


def test_feature_taps_see_every_resnet(backbone):
    x, text = inputs((9, 5))
    seen = {}

    def look(where, maps):
        assert maps.shape[:2] == (2, 5) and tuple(maps.shape[3:]) == where.grid[1:]
        seen[where.site.name] = maps
        return maps * 0 if where.site.name == "up_blocks.3.resnets.2" else maps

    every = Taps(features=dict.fromkeys(backbone.features, look))
    silenced = backbone.predict(x, 9, given(text, BOTH), taps=every)
    assert set(seen) == set(backbone.features) and len(seen) == 50
    assert (silenced - backbone.predict(x, 9, given(text, BOTH))).abs().max() > 1e-3


def test_names_and_lists():
    for name, expected in SEEN.items():
        wanted = entries(LISTS.get(name, name)) or (0,)
        assert [sorted(row) for row in references(wanted, 5)] == [sorted(row) for row in expected]
    assert entries([-1, "first"]) == entries("first_and_previous") and entries(["middle"]) == ("mid",)
    assert entries([]) == entries([0]) == entries("frame")
    assert references(("mid",), 8) == ((3,),) * 8 and references((-1, "first"), 1) == ((0, 0),)
    assert random(["middle"]).identity == random("middle").identity != random("all").identity
    for wrong, said in (("midle", "middle"), (["frist"], "frist"), ([True], "True")):
        with pytest.raises(UserError, match=said):
            entries(wrong)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Temporal weights in the names of FateZero, low rank except for one full convolution, one layer untouched."""
    unet, rng, found = library(), torch.Generator().manual_seed(3), {}
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size[0] > 1:
            c = module.out_channels
            if name == "conv_in":
                shapes = {"weight": (c, c, 3), "bias": (c,)}
            else:
                shapes = {"down.weight": (3, c, 3), "up.weight": (c, 3, 3)}
            found |= {f"{name}.conv_temporal.{key}": shape for key, shape in shapes.items()}
        if name.endswith("transformer_blocks.0"):
            c = module.attn1.query_dim
            parts = {f"attn_temporal.{key}.weight": (c, c) for key in ("to_q", "to_k", "to_v", "to_out.0")}
            parts |= {"attn_temporal.to_out.0.bias": (c,), "norm_temporal.weight": (c,)}
            parts |= {"norm_temporal.bias": (c,)}
            found |= {f"{name}.{key}": shape for key, shape in parts.items()}
    weights = {key: torch.randn(shape, generator=rng) * 0.2 for key, shape in found.items()}
    weights["conv_out.conv_temporal.up.weight"] *= 0
    query = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    weights[query] = torch.randn(16, 16, generator=rng)
    file = tmp_path_factory.mktemp("tuned") / "temporal.safetensors"
    save_file(weights, file)
    return file, {key: value.double() for key, value in weights.items()}


def slowly_along_frames(x, kernel):
    """A convolution along frames, written out: `kernel` is out, in, taps."""
    padded = torch.cat([torch.zeros_like(x[:1]), x, torch.zeros_like(x[:1])])
    shifted = [padded[i : i + len(x)] for i in range(3)]
    return sum(torch.einsum("fchw,oc->fohw", maps, kernel[..., i]) for i, maps in enumerate(shifted))


def with_slow_layers(weights):
    """The library's network with temporal layers behind its own, from formulas."""
    unet = library(SEEN["middle"], shared=True, least=16)
    heads = 2

    def after_conv(name):
        at = {key.split("conv_temporal.")[1]: w for key, w in weights.items() if f"{name}.conv_temp" in key}

        def run(module, args, x):
            if "weight" in at:
                return slowly_along_frames(x, at["weight"]) + at["bias"][:, None, None]
            return x + slowly_along_frames(slowly_along_frames(x, at["down.weight"]), at["up.weight"])

        return run

    def after_block(name):
        at = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}

        def run(module, args, x):
            normed = torch.nn.functional.layer_norm(
                x, x.shape[-1:], at["norm_temporal.weight"], at["norm_temporal.bias"]
            )
            q, k, v = (normed @ at[f"attn_temporal.{key}.weight"].T for key in ("to_q", "to_k", "to_v"))
            out = []
            for rows in torch.arange(x.shape[-1]).chunk(heads):
                scores = torch.einsum("fnc,gnc->nfg", q[..., rows], k[..., rows]) / len(rows) ** 0.5
                out.append(torch.einsum("nfg,gnc->fnc", scores.softmax(-1), v[..., rows]))
            mixed = torch.cat(out, dim=-1) @ at["attn_temporal.to_out.0.weight"].T
            return x + mixed + at["attn_temporal.to_out.0.bias"]

        return run

    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size[0] > 1:
            module.register_forward_hook(after_conv(name))
        if name.endswith("transformer_blocks.0"):
            module.register_forward_hook(after_block(name))
    query = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    unet.load_state_dict({query: weights[query]}, strict=False)
    return unet


def test_temporal_layers_against_written_out_ones(tuned, backbone):
    file, weights = tuned
    ours = random(temporal=file)
    x, text = inputs((9, 5))
    expected = by_the_library(with_slow_layers(weights), x, 500, text)
    close(ours.predict(x, 500, given(text, BOTH)), expected, atol=1e-11)
    assert (expected - backbone.predict(x, 500, given(text, BOTH))).abs().max() > 1e-2
    temporal = [site for site in ours.sites.values() if site.role == "temporal"]
    assert len(temporal) == 16 and ours.identity != backbone.identity
    assert {(site.batch, site.tokens) for site in temporal} == {("(h w)", "f")}
    grids = []

    def look(where, qkv):
        if where.site.role == "temporal":
            f, h, w = where.grid
            grids.append(tuple(qkv.q.shape[:2]) == (2, h * w) and qkv.k.shape[3] == f)
        return attend(qkv)

    close(ours.predict(x, 500, given(text, BOTH), taps=Taps(look)), expected, atol=1e-11)
    assert grids == [True] * 16
    assert not hasattr(ours.unet.conv_out, "conv_temporal") and hasattr(ours.unet.conv_in, "conv_temporal")


def test_the_names_and_folders_of_tune_a_video(tuned, tmp_path):
    file, weights = tuned
    (tmp_path / "unet").mkdir()
    renamed = {
        key.replace("attn_temporal", "attn_temp").replace("norm_temporal", "norm_temp"): value.float()
        for key, value in weights.items()
    }
    save_file(renamed, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    x, text = inputs()
    close(
        random(temporal=tmp_path).predict(x, 9, given(text, BOTH)),
        random(temporal=file).predict(x, 9, given(text, BOTH)),
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.clear() or w.update(x=torch.ones(1)), "no temporal layers"),
        (lambda w: w.update({"conv_norm.weight": torch.ones(3)}), "do not belong"),
        (lambda w: w.update({"time.conv_temporal.up.weight": torch.ones(3)}), "do not belong"),
        (lambda w: w.update({"conv_in.conv_temporal.weight": torch.ones(4, 4, 3)}), "do not belong"),
        (lambda w: w.pop("mid_block.attentions.0.transformer_blocks.0.norm_temporal.bias"), "do not belong"),
        (lambda w: w.pop("mid_block.resnets.0.conv1.conv_temporal.down.weight"), "do not belong"),
    ],
)
def test_strange_temporal_weights_are_refused(tuned, tmp_path, change, said):
    weights = load_file(tuned[0])
    change(weights)
    save_file(weights, tmp_path / "changed.safetensors")
    with pytest.raises(UserError, match=said):
        random(temporal=tmp_path / "changed.safetensors")
    with pytest.raises(UserError, match="no temporal weights"):
        random(temporal=tmp_path / "nothing")


def test_the_shipped_image_model_and_its_identity(tmp_path):
    backbone = Inflated2D.load()
    assert backbone.native == (64, 64) and backbone.inflation.least_channels == 64
    assert (
        len([site for site in backbone.sites.values() if site.look]) == 11
        and not backbone.describe()["warnings"]
    )
    assert Inflated2D.identify() == backbone.identity == Inflated2D.identify(least_channels=64)
    others = ({"attention": "all"}, {"least_channels": 32}, {"shared_norm": False})
    assert len({backbone.identity, *(Inflated2D.identify(**each) for each in others)}) == 4
    frames = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    latents, text = backbone.encode(frames), backbone.embed("a red car")
    out = backbone.predict(latents[None], 500, given(text.tokens[None], ("source",)))
    assert out.shape == (1, 3, 12, 12, 16) and out.isfinite().all()
    assert backbone.decode(latents).shape == frames.shape


@pytest.mark.parametrize(
    ("key", "value"),
    [("addition_embed_type", "text_time"), ("in_channels", 3), ("only_cross_attention", True)],
)
def test_networks_that_want_more_are_refused(tmp_path, key, value):
    (tmp_path / "unet").mkdir()
    config = {**tiny.UNET2D, "in_channels": 4, "out_channels": 4, key: value}
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    index = {"unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="cannot be run over frames"):
        Inflated2D.load(tmp_path)
    with pytest.raises(UserError, match="another kind"):
        Inflated2D.load("embedded")


def relative(ours, theirs):
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


class Golden:
    """A case of the authors' code, and our backbone as its manifest says."""

    def __init__(self, parity, case):
        self.story = json.loads((parity / "golden" / f"{case}.json").read_text())
        self.tensors = load_file(parity / "golden" / f"{case}.safetensors")
        model = self.story["config"]["model_config"]
        self.backbone = Inflated2D.load(
            parity / self.story["model_dir"],
            attention=model.get("SparseCausalAttention_index", "first_and_previous"),
            least_channels=model.get("least_sc_channel", 0),
            temporal=parity / self.story["unet3d_temporal_weights"],
        )
        self.latents = rearrange(self.tensors["inv/latents"], "n c f h w -> n f c h w")
        self.times = self.tensors["inv/timesteps"].tolist()

    def predict(self, x, t, prompts, taps=NO_TAPS):
        tokens = torch.stack([self.backbone.embed(each).tokens for each in prompts])
        streams = BOTH if len(prompts) == 2 else ("source",)
        return self.backbone.predict(x.expand(len(prompts), *x.shape), t, given(tokens, streams), taps=taps)

    def upward(self, i, taps=NO_TAPS):
        """The network's output and the next latent, from the authors' latent."""
        path, t = self.backbone.noise_path, self.times[i]
        out = self.predict(self.latents[i], t, [self.story["source_prompt"]], taps)[0]
        return out, path.step(self.latents[i], out, now=[CLEAN, *self.times][i], call=t, to=t)

    def downward(self, i, x):
        path, t = self.backbone.noise_path, self.times[-1 - i]
        both = self.predict(x, t, ["", self.story["editing_prompts"][1]])
        below = [CLEAN, *self.times][-2 - i]
        return both, path.step(x, cfg(*both, self.story["guidance_scale"]), now=t, call=t, to=below)


def slices(into):
    """A tap that keeps of each map what the manifests say: head 0, every manieth query and key."""
    counts = {}

    def tap(where, qkv):
        if where.grid.height <= 32:
            part = where.site.name.split("_")[0]
            key = f"{part}_{where.site.role}"
            counts[key] = counts.get(key, -1) + 1
            maps = probabilities(qkv)[0, :, 0]
            maps = maps[:, :: max(1, maps.shape[1] // 16)]
            cross = where.site.role == "cross"
            maps = maps[..., :24] if cross else maps[..., :: max(1, maps.shape[2] // 32)]
            into[f"inv/attn/step00/{key}/{counts[key]}"] = maps
        return attend(qkv)

    return tap


@pytest.mark.parametrize(
    "case", ["fz_shape_identity", pytest.param("fz_base_identity", marks=pytest.mark.parity)]
)
def test_the_authors_first_outputs(shared, case):
    """Text, network, maps and an inversion step: one frame looked at, and (shape) two at every level."""
    golden = Golden(shared / "parity", case)
    story, tensors = golden.story, golden.tensors
    limit, maps = story["tolerance"]["teacher_forced"], {}
    assert limit == 1e-4 and golden.backbone.noise_path.times(len(golden.times)) == golden.times
    both = torch.stack([golden.backbone.embed(each).tokens for each in ("", story["source_prompt"])])
    assert relative(both, tensors["text/source/uncond_cond"]) < 1e-5
    out, moved = golden.upward(0, Taps(slices(maps)) if case == "fz_shape_identity" else NO_TAPS)
    assert relative(out, rearrange(tensors["inv/unet_out/00"][0], "c f h w -> f c h w")) < limit
    assert relative(moved - golden.latents[0], golden.latents[1] - golden.latents[0]) < limit
    known = [key for key in tensors if key.startswith("inv/attn/step00/")]
    assert set(maps) == set(known) and len(known) == (22 if case == "fz_shape_identity" else 0)
    assert all(relative(maps[key], tensors[key]) < limit for key in known)
    if case == "fz_base_identity":
        pair, _ = golden.downward(0, rearrange(tensors["edit1/init_latents"][0], "c f h w -> f c h w"))
        expected = rearrange(tensors["edit1/unet_out/00"], "s c f h w -> s f c h w")
        assert relative(pair, expected) < limit


@pytest.mark.parity
def test_the_authors_whole_inversion_and_edit_without_control(shared):
    golden = Golden(shared / "parity", "fz_base_identity")
    tolerance, steps = golden.story["tolerance"], len(golden.times)
    limit = tolerance["teacher_forced"]
    for i in range(steps):
        assert relative(golden.upward(i)[1], golden.latents[i + 1]) < limit
    start = rearrange(golden.tensors["edit1/init_latents"][0], "c f h w -> f c h w")
    after = rearrange(golden.tensors["edit1/latents"], "n c f h w -> n f c h w")
    for i in range(steps):
        assert relative(golden.downward(i, start if i == 0 else after[i - 1])[1], after[i]) < limit
    free = invert(
        golden.backbone, golden.latents[0], golden.backbone.embed(golden.story["source_prompt"]), steps
    )
    assert relative(free[-1], golden.latents[-1]) < tolerance["inversion_free_running"]
    x = free[-1]
    for i in range(steps):
        x = golden.downward(i, x)[1]
    assert relative(x, after[-1]) < tolerance["final_free_running"]
