"""Video Instruct-Pix2Pix against a written-out twin and the library's sampler; its guidance, masks and refusals."""

from dataclasses import replace

import pytest
import torch

from experiments.config.compose import config_of, plain
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.diffusion.noise_paths import CLEAN
from freemask.errors import UserError
from freemask.methods.text2video_zero import Text2VideoZero
from freemask.methods.text2video_zero_pix2pix import ancestral, shares
from freemask.types import Clip
from tests.given import Half, seeded
from tests.test_pix2video import Ended
from tests.test_text2video_zero import LOOK, TASK, First, clip, run

METHOD = Text2VideoZero(mode="pix2pix", steps=4, guidance=5.0, image_guidance=1.5)


@pytest.fixture(scope="module")
def backbone():
    return Inflated2D.random(0, channels="latents", **LOOK)


class Twin:
    """The library's network of eight channels after the method card: stacked are instruction and clip, the clip alone,
    and neither, each all frames. Euler's sampler in its own terms, in which a latent's signal is always one."""

    def __init__(self, method, backbone, frames):
        self.method, self.frames = method, len(frames)
        parts = tiny.parts(0, torch.float64, "epsilon", 20, image=True, more=4)
        self.unet, self.vae = parts.unet.eval(), parts.vae.eval()
        for name, module in self.unet.named_modules():
            if name.endswith("attn1"):
                module.set_processor(First(self))
        self.texts = [backbone.embed(prompt).tokens for prompt in (TASK.target, "", "")]
        own = self.vae.encode(
            frames.double() * 2 - 1
        ).latent_dist.mode()  # not in the scale of the noisy latents
        self.beside = torch.cat([own, own, torch.zeros_like(own)])
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        table = torch.cumprod(1 - betas, 0).double()
        self.sigmas = ((1 - table) / table).sqrt()

    def noise(self, x, t, sigma):
        seen = torch.cat([torch.cat([x / (1 + sigma**2).sqrt()] * 3), self.beside], dim=1)
        text = torch.cat([each.expand(len(x), -1, -1) for each in self.texts])
        to, image, away = self.unet(seen, t, text).sample.chunk(3)
        of_image, of_text = self.method.image_guidance, self.method.guidance
        return away + of_image * (image - away) + of_text * (to - image)

    @torch.no_grad()
    def made(self, noises):
        start, *fresh = [*noises, torch.zeros(())]
        times = [1 + 250 * place for place in (3, 2, 1, 0)]
        x = start * (1 + self.sigmas[times[0]] ** 2).sqrt()
        sigmas = [*self.sigmas[times], torch.zeros(())]
        for place, t in enumerate(times):
            now, to = sigmas[place], sigmas[place + 1]
            eps = self.noise(x, t, now)
            up = (to**2 * (now**2 - to**2) / now**2).sqrt()
            down = (to**2 - up**2).sqrt()
            x = x + eps * (down - now) + up * fresh[place]
        return x


@pytest.mark.parametrize(
    "settings", [{}, {"guidance": 1, "image_guidance": 1}, {"image_guidance": 1}], ids=str
)
@pytest.mark.parametrize("frames", [1, 3])
def test_pix2pix_is_its_twin(backbone, settings, frames):
    method, ended, rng = replace(METHOD, **settings), Ended(backbone), seeded(0)
    edit = run(method, ended, frames)
    noises = [torch.randn(frames, 4, 6, 10, generator=rng).double() for _ in range(4)]
    made = Twin(method, backbone, clip(frames).frames).made(noises)
    torch.testing.assert_close(ended.latents, made, atol=1e-5, rtol=0)
    assert edit.facts["mode"] == "pix2pix" and edit.facts["network_calls"] == 4


@pytest.mark.filterwarnings("ignore:__array__")  # inside the library
def test_a_step_is_the_librarys(backbone):
    """Its noise table is in single precision."""
    from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler

    path, steps = backbone.noise_path, 5
    library = EulerAncestralDiscreteScheduler(
        1000, 0.00085, 0.012, "scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    library.set_timesteps(steps)
    levels = [*reversed(path.times(steps)), CLEAN]
    assert library.timesteps.tolist() == levels[:-1]
    x, eps = (torch.randn(2, 4, 6, 10, generator=seeded(seed), dtype=torch.float64) for seed in (0, 1))
    for now, to in zip(levels, levels[1:], strict=False):
        theirs = library.step(eps, float(now), x / path.scales(now)[0], generator=seeded(2)).prev_sample
        fresh = torch.randn(2, 4, 6, 10, generator=seeded(2), dtype=torch.float64)
        made = ancestral(path, x, eps, lambda fresh=fresh: fresh, now=now, to=to)
        signal = 1 if to == CLEAN else path.scales(to)[0]
        torch.testing.assert_close(made, theirs * signal, atol=1e-5, rtol=1e-5)


def test_predictions_that_do_not_count_are_not_asked_for(backbone):
    asked = []

    class Asked(Ended):
        def predict(self, x, t, given, **more):
            asked.append(tuple(given))
            return self.backbone.predict(x, t, given, **more)

    for guidance, of_image in ((5, 1.5), (5, 1), (1, 1), (2, 2)):
        run(replace(METHOD, steps=1, guidance=guidance, image_guidance=of_image), Asked(backbone), 2)
    assert asked == [("uncond", "image", "cond"), ("image", "cond"), ("cond",), ("uncond", "cond")]
    assert sum(shares(7.5, 1.5).values()) == 1


def test_the_clip_the_words_and_every_setting_count(backbone):
    usual = run(METHOD, backbone).frames
    other = METHOD(backbone, Clip("d", torch.zeros(4, 3, 12, 20)), TASK, seeded(0)).frames
    changed = [run(METHOD, backbone, task=replace(TASK, target="a blue car")).frames, other]
    for change in (
        {"guidance": 2},
        {"image_guidance": 1},
        {"look": ()},
        {"suffix": " the"},
        {"negative": "grass"},
    ):
        changed.append(run(replace(METHOD, **change), backbone).frames)
    assert all(float((each - usual).abs().max()) > 1e-6 for each in changed)


def test_a_mask_holds_the_clip_outside(backbone):
    whole, none = (run(replace(METHOD, mask=Half(each)), backbone).frames for each in (1, 0))
    torch.testing.assert_close(whole, run(METHOD, backbone).frames, atol=1e-5, rtol=0)
    torch.testing.assert_close(none, backbone.decode(backbone.encode(clip().frames)), atol=1e-4, rtol=0)


def test_networks_without_these_channels_are_refused(backbone):
    """By what is configured, and by what they take; depth is something else."""
    for channels in (None, "depth"):
        with pytest.raises(UserError, match="instruct_pix2pix"):
            METHOD.check_model({"control": None, "channels": channels})
    METHOD.check_model({"control": None, "channels": "latents"})
    with pytest.raises(UserError, match="shown none channels"):
        run(METHOD, Inflated2D.random(0, **LOOK), 2)
    deep = replace(clip(2), conditions={"channels": torch.zeros(2, 1, 6, 10)})
    with pytest.raises(UserError, match="shown 1 channels"):
        METHOD(backbone, deep, TASK, seeded(0))
    with pytest.raises(UserError, match="prompt alone"):
        run(Text2VideoZero(steps=1, mode="text"), backbone, 2)
    with pytest.raises(UserError, match="model.channels"):
        Inflated2D.random(0, channels="depth")


def test_the_yaml_of_the_published_network():
    config = plain(
        config_of("edit", ["method=text2video_zero", "model=instruct_pix2pix", "method.mode=pix2pix"])
    )
    assert (config["model"]["path"], config["model"]["channels"]) == ("timbrooks/instruct-pix2pix", "latents")
    assert config["method"]["image_guidance"] == Text2VideoZero().image_guidance
