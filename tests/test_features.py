"""Features at named modules, and whom frames look at in one call: what taps see and change, against plain hooks."""

import re
from types import SimpleNamespace

import pytest
import torch
from einops import rearrange, repeat

from freemask.attention.math import attend
from freemask.attention.rewire import looking
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D, Inflation
from freemask.backbones.unet import placed
from freemask.backbones.unet3d import UNet3D
from freemask.errors import UserError
from freemask.types import Taps
from tests.given import given

BOTH = ("uncond", "cond")
KINDS = {
    "convolution": r"\.resnets\.\d+\.conv2$",
    "block": r"\.resnets\.\d+$",
    "along frames": r"\.temp_convs\.\d+$",
    "downsampler": r"\.downsamplers\.\d+$",
    "upsampler": r"\.upsamplers\.\d+$",
}


def kind_of(name):
    (found,) = (kind for kind, path in KINDS.items() if re.search(path, name))
    return found


def in_video(unet, x, t, text):
    out = unet(rearrange(x, "s f c h w -> s c f h w"), t, text).sample
    return rearrange(out, "s c f h w -> s f c h w")


def in_pictures(unet, x, t, text):
    """Frame by frame, all clips in one batch."""
    rows = unet(x.flatten(0, 1), t, repeat(text, "s l d -> (s f) l d", f=x.shape[1])).sample
    return rows.unflatten(0, x.shape[:2])


@pytest.fixture(scope="module", params=["video", "pictures"])
def pair(request):
    """A backbone of ours, and the same network as the library makes it, with how it is called."""
    image = request.param == "pictures"
    options = {"attention": "frame", "shared_norm": False} if image else {}
    ours = (Inflated2D if image else UNet3D).random(0, dtype="float64", max_tokens=20, **options)
    unet = tiny.parts(0, torch.float64, "epsilon", 20, image=image).unet.eval().requires_grad_(False)
    kinds = {kind: name for name in ours.features for kind in [kind_of(name)]}  # the last of each
    wanted = set(KINDS) - ({"along frames"} if image else set())
    assert set(kinds) == wanted
    return SimpleNamespace(ours=ours, unet=unet, call=in_pictures if image else in_video, kinds=kinds)


def inputs(size=(8, 8), streams=2, frames=3):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(streams, frames, 4, *size, generator=rng, dtype=torch.float64)
    return x, torch.randn(streams, 20, 16, generator=rng, dtype=torch.float64)


def hooked(pair, names, hook, x, text):
    """The library's answer, with plain hooks on some modules: hook(name, output, streams) may return another."""
    hooks = [
        pair.unet.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: hook(name, output)
        )
        for name in names
    ]
    try:
        return pair.call(pair.unet, x, 500, text)
    finally:
        for each in hooks:
            each.remove()


def close(ours, theirs, atol=1e-12):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("size", [(8, 8), (9, 5)])
def test_taps_see_what_hooks_on_the_librarys_network_see(pair, size):
    """Every module, in one call, in the order of `features`; each on the grid that the backbone foretells."""
    x, text = inputs(size)
    theirs, ours, told = {}, {}, {}
    expected = hooked(pair, pair.ours.features, lambda name, output: theirs.update({name: output}), x, text)

    def look(where, maps):
        ours[where.site.name], told[where.site.name] = maps.clone(), where
        return maps

    taps = Taps(features=dict.fromkeys(pair.ours.features, look))
    close(pair.ours.predict(x, 500, given(text, BOTH), taps=taps), expected)
    assert list(ours) == list(pair.ours.features)
    pixels = [side * pair.ours.multiple for side in size]
    for name, maps in ours.items():
        close(maps.flatten(0, 1), theirs[name])
        where = told[name]
        assert (where.site, where.t, where.streams) == (pair.ours.features[name], 500, BOTH)
        assert where.grid == (3, *maps.shape[-2:]) == pair.ours.grid(where.site, 3, *pixels)


def test_what_a_tap_returns_is_heard_by_all_that_comes_later(pair):
    """Of each kind: the clips exchanged, and one of them doubled. Streams keep their places."""
    x, text = inputs()
    plain = pair.ours.predict(x, 500, given(text, BOTH))

    def change(_, maps):
        return torch.stack([2 * maps[1], maps[0] + maps[0].square()])

    def change_theirs(_, output):
        return change(None, rearrange(output, "(s f) ... -> s f ...", s=2)).flatten(0, 1)

    for name in pair.kinds.values():
        changed = pair.ours.predict(x, 500, given(text, BOTH), taps=Taps(features={name: change}))
        close(changed, hooked(pair, [name], change_theirs, x, text))
        assert float((changed - plain).abs().max()) > 1e-3, name
    close(pair.ours.predict(x, 500, given(text, BOTH)), plain)  # and nothing stays


def test_gradients_flow_from_features_to_latents(pair):
    (x, text), weights = inputs(), torch.linspace(-1, 1, 7, dtype=torch.float64)
    ours, theirs = ({}, x.clone().requires_grad_(True)), ({}, x.clone().requires_grad_(True))
    names = list(pair.kinds.values())
    see = {name: lambda where, maps: ours[0].update({where.site.name: maps}) or maps for name in names}
    pair.ours.predict(ours[1], 500, given(text, BOTH), taps=Taps(features=see))
    hooked(pair, names, lambda name, output: theirs[0].update({name: output}), theirs[1], text)
    for name in names:
        own, expected = (
            torch.autograd.grad((seen[name].flatten()[:7] * weights).sum(), latents, retain_graph=True)[0]
            for seen, latents in (ours, theirs)
        )
        close(own, expected)
        # of its own clip alone
        assert float(own[0].abs().max()) > 1e-6 and float(own[1].abs().max()) == 0, name


def test_gradients_flow_through_what_a_tap_returns(pair):
    (x, text), name = inputs(), pair.kinds["upsampler"]
    grads = []
    for run in (
        lambda change: pair.ours.predict(x, 500, given(text, BOTH), taps=Taps(features={name: change})),
        lambda change: hooked(pair, [name], change, x, text),
    ):
        more = torch.zeros((), dtype=torch.float64, requires_grad=True)
        run(lambda _, maps, more=more: maps + more * maps.square()).square().mean().backward()
        grads.append(more.grad)
    close(*grads)
    assert float(grads[0].abs()) > 1e-6


def test_unknown_modules_and_other_shapes_are_refused(pair):
    x, text = inputs()
    name = pair.kinds["convolution"]

    def predict(**features):
        pair.ours.predict(x, 500, given(text, BOTH), taps=Taps(features=features))

    with pytest.raises(UserError, match=f"did you mean '{name}'"):
        predict(**{name.replace("conv2", "conv3"): lambda _, maps: maps})
    with pytest.raises(UserError, match="no such module"):  # a layer of attention is none
        predict(**{next(iter(pair.ours.sites)): lambda _, maps: maps})
    with pytest.raises(ValueError, match="tap at"):
        predict(**{name: lambda _, maps: maps[:1]})


# --- whom frames look at --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone():
    return Inflated2D.random(0, dtype="float64", max_tokens=20, attention="frame", shared_norm=False)


class InTheDecoder(Inflation):
    """All frames look at all frames, on the way up alone."""

    def look(self, layer):
        return ("all",) if layer in self.inside else ()

    @classmethod
    def over(cls, unet):
        made = cls((), 0, False)
        object.__setattr__(made, "inside", set(unet.up_blocks.modules()))
        return made


def all_in_the_decoder(where):
    return ("all",) if where.site.name.startswith("up_blocks") else None


def test_a_look_chosen_for_some_layers_equals_a_network_loaded_with_it(alone):
    made = tiny.parts(0, torch.float64, "epsilon", 20, image=True)
    loaded = Inflated2D(placed(made, "cpu"), InTheDecoder.over(made.unet), name="decoder")
    assert sum(bool(site.look) for site in loaded.sites.values()) == 9
    x, text = inputs()
    expected = loaded.predict(x, 500, given(text, BOTH))
    plain = alone.predict(x, 500, given(text, BOTH))
    asked = []
    taps = Taps(look=lambda where: asked.append(where) or all_in_the_decoder(where))
    close(alone.predict(x, 500, given(text, BOTH), taps=taps), expected)
    assert float((expected - plain).abs().max()) > 1e-3
    own = [site for site in alone.sites.values() if site.role == "self"]
    assert [where.site for where in asked] == own and {where.t for where in asked} == {500}
    close(alone.predict(x, 500, given(text, BOTH)), plain)  # of that call alone


@pytest.mark.parametrize("wanted", [("all",), ("mid",), (0, "mid"), (-1, "first"), (-1, 0, 1)])
def test_a_look_for_all_layers_equals_a_network_loaded_with_it(alone, wanted):
    loaded = Inflated2D.random(
        0, dtype="float64", max_tokens=20, attention=list(wanted), least_channels=0, shared_norm=False
    )
    x, text = inputs(frames=4)
    taps = Taps(look=lambda _: wanted)
    close(alone.predict(x, 500, given(text, BOTH), taps=taps), loaded.predict(x, 500, given(text, BOTH)))


def test_a_look_stands_before_that_of_the_model_and_none_leaves_it(alone):
    loaded = Inflated2D.random(0, dtype="float64", max_tokens=20, least_channels=0, shared_norm=False)
    x, text = inputs()
    plain, own = (each.predict(x, 500, given(text, BOTH)) for each in (alone, loaded))
    assert float((plain - own).abs().max()) > 1e-3
    close(loaded.predict(x, 500, given(text, BOTH), taps=Taps(look=lambda _: ())), plain)
    close(loaded.predict(x, 500, given(text, BOTH), taps=Taps(look=lambda _: None)), own)


def test_a_look_may_be_another_at_another_time(alone):
    x, text = inputs()
    taps = Taps(look=lambda where: ("all",) if where.t > 500 else None)
    for t, wanted in ((501, ("all",)), (500, ())):
        fixed = alone.predict(x, t, given(text, BOTH), taps=Taps(look=lambda _, wanted=wanted: wanted))
        close(alone.predict(x, t, given(text, BOTH), taps=taps), fixed)


def test_taps_get_the_keys_of_the_frames_that_are_looked_at(pair):
    """In a video network too, whose temporal layers are not asked."""
    x, text = inputs()
    widths = set()

    def wide(where, qkv):
        if where.site.role == "self":
            widths.add(qkv.k.shape[3] // qkv.q.shape[3])
        return attend(qkv)

    def by_hand(where, qkv):
        return attend(looking(qkv, ("all",)) if where.site.role == "self" else qkv)

    made = pair.ours.predict(x, 500, given(text, BOTH), taps=Taps(wide, look=lambda _: ("all",)))
    close(made, pair.ours.predict(x, 500, given(text, BOTH), taps=Taps(by_hand)))
    assert widths == {3}


@pytest.mark.parametrize("wanted", [("al",), (True,), "midle"])
def test_entries_that_mean_nothing_are_refused(alone, wanted):
    x, text = inputs()
    with pytest.raises(UserError, match="attention across frames|Attention across frames"):
        alone.predict(x, 500, given(text, BOTH), taps=Taps(look=lambda _: wanted))
    assert alone.predict(x, 500, given(text, BOTH)).isfinite().all()  # and the next call begins anew
