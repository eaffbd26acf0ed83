"""Cases of AnyV2V: an image-to-video network's inversion under the source's first frame, its way back, and the edit,
into which a convolution and the queries and keys of the source are injected."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from einops import rearrange
from torch import Tensor

from freemask.attention.math import attend
from freemask.backbones.i2vgen import I2VGen
from freemask.diffusion.guidance import Predict, cfg, guided
from freemask.diffusion.loops import invert, sample
from freemask.diffusion.noise_paths import CLEAN
from freemask.errors import UserError
from freemask.types import NO_TAPS, QKV, Given, Time, Where
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import FORCED, FREE, Ledger, relative

BRANCH = "up_blocks.1.resnets.1.conv2"  # before the shortcut is added
FIRST = {"up_blocks.1": 1, "up_blocks.2": 0, "up_blocks.3": 0}  # the first layer of a block that is served
LONG = "a prompt is longer than the text encoder reads: the authors cut it, here it is refused, and theirs is given"
PICTURES = "not yet run: how pictures are prepared (draws, input, vae); what was made of them is given"


def compare(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    run = Run(case, ledger, wanted)
    run.texts()
    run.inversion()
    if "recon/latents" in case:
        run.reconstruction()
    run.edit()
    ledger.remark(PICTURES)


class Run:
    """Latents are stored as c f h w."""

    def __init__(self, case: Case, ledger: Ledger, wanted: Wanted) -> None:
        self.case, self.ledger, self.wanted = case, ledger, wanted
        self.backbone = I2VGen.load(case.model, dtype=case.about.get("dtype", "float32"))
        self.path = self.backbone.noise_path
        self.limit = case.number("teacher_forced", 1e-4)
        self.up = case["inv/timesteps"].tolist()
        self.whole = wanted.free and wanted.steps is None

    @cached_property
    def latents(self) -> Tensor:
        return self.case.latents("inv/latents")

    def steps(self, total: int) -> range:
        return range(total if self.wanted.steps is None else min(self.wanted.steps, total))

    def note(self, group: str, where: str, ours: Tensor, theirs: Tensor) -> None:
        self.ledger.note(group, FORCED, where, relative(ours, theirs), self.limit)

    def given(self, key: str) -> list[Given]:
        """Row by row. Of the picture's latents, what lies behind the first frame is the network's own business."""
        parts = {name: self.case[f"{key}/cond/{name}"] for name in ("text", "fps")}
        parts["image"] = self.case[f"{key}/cond/image_embeddings"][:, 0]
        parts["image_latents"] = self.case[f"{key}/cond/image_latents"][:, :, 0]
        rows = range(len(parts["text"]))
        return [Given({name: value[row] for name, value in parts.items()}) for row in rows]

    def texts(self) -> None:
        about = self.case.about
        prompts = {
            "edit": [about["edit_source_prompt"], about["negative_prompt"], about["editing_prompts"][0]],
            "inv": [about["source_prompt"]],
        }
        for key, each in prompts.items():
            for row, prompt in enumerate(each):
                try:
                    ours = self.backbone.embed(prompt).tokens
                except UserError as error:
                    self.ledger.remark(f"{LONG} ({str(error.came).split(',')[0]})")
                    continue
                self.note("text: embeddings", f"{key}, row {row}", ours, self.case[f"{key}/cond/text"][row])
        times = self.path.times(about["num_inversion_steps"])
        self.ledger.note("times of the network", FORCED, "inversion", float(times != self.up), 0.0)
        down = self.path.times(about["num_inference_steps"])[::-1]
        down = down[about["options"]["ddim_init_latents_t_idx"] :]
        same = down == self.case["edit/timesteps"].tolist()
        self.ledger.note("times of the network", FORCED, "edit", float(not same), 0.0)

    def inversion(self) -> None:
        predict = guided(self.backbone, self.given("inv")[0], stream="source")
        stored = self.case.latents("inv/unet_out")
        outputs = dict(zip((0, len(self.up) - 1), stored, strict=True))
        for j in self.steps(len(self.up)):
            self.wanted.progress("inversion, step by step", j, len(self.up))
            x, t = self.latents[j], self.up[j]
            out = predict(x, t)
            if j in outputs:
                self.note("inversion: network output", f"step {j}", out, outputs[j])
            said = self.restated(out, x, t)
            made = self.path.step(x, said, now=[CLEAN, *self.up][j], call=t, to=t)
            self.note("inversion: latents", f"step {j}", made, self.latents[j + 1])
        if self.whole:
            upward = self.as_the_authors(predict)
            free = invert(self.backbone, self.latents[0], upward, self.up, progress=self.wanted.progress)
            self.free("inversion: latents", free[-1], self.latents[-1], "inversion_free_running", 1e-3)

    def as_the_authors(self, predict: Predict) -> Predict:
        return lambda x, t: self.restated(predict(x, t), x, t)

    def restated(self, out: Tensor, x: Tensor, t: Time) -> Tensor:
        """The authors tell the network the level above, and take what it says of the latent's own level: here, what
        it would have to say of the level above for the same clean latent and noise."""
        now = [CLEAN, *self.up][self.up.index(t)]
        clean, noise = (make(x, out, now=now, call=now) for make in (self.path.clean, self.path.noise))
        signal, share = self.path.scales(t)
        return signal * noise - share * clean

    def reconstruction(self) -> None:
        negative, positive = self.given("recon")
        times, latents = self.case["recon/timesteps"].tolist(), self.case.latents("recon/latents")
        strength = self.case.about["options"]["recon"]["cfg"]
        for i in self.steps(len(times)):
            x, t = latents[i], times[i]
            streams = {"uncond": negative, "cond": positive}
            both = self.backbone.predict(torch.stack([x, x]), t, streams)
            if i == 0:
                theirs = self.case.latents("recon/unet_out_first")
                self.note("reconstruction: network output", "step 0", both, theirs)
            made = self.path.step(x, cfg(*both, strength), now=t, call=t, to=[*times, CLEAN][i + 1])
            self.note("reconstruction: latents", f"step {i}", made, latents[i + 1])

    def edit(self) -> None:
        times, after = self.case["edit/timesteps"].tolist(), self.case.latents("edit/latents")
        before = [self.case.latents("edit/init_latents"), *after]
        injection = Injection(self.case, self.given("edit"), self.backbone, self.latents[1:], self.up)
        for i in self.steps(len(times)):
            self.wanted.progress("edit, step by step", i, len(times))
            x, t = before[i], times[i]
            out, seen = injection.call(x, t)
            self.inside(i, out, seen)
            made = self.path.step(x, injection.guided(out), now=t, call=t, to=[*times, CLEAN][i + 1])
            self.note("edit: latents", f"step {i}", made, after[i])
        if self.whole:
            ascending = times[::-1]
            end = sample(self.backbone, before[0], injection, ascending, progress=self.wanted.progress)
            self.free("edit: latents", end, after[-1], "final_free_running", 2e-2)

    def inside(self, i: int, out: Tensor, seen: dict[str, Tensor]) -> None:
        """What is stored of a step: the answer for each row, and queries, keys and the branch after the injection."""
        thinned = dict(zip(("temp_attentions", "attentions"), self._thinned(), strict=True))
        for name in self.case.names(f"edit/step{i:02d}/"):
            kind = name.rpartition("/")[2]
            if kind == "unet_out":
                self.note("edit: network output", name, out, self.case.latents(name))
            elif name.removeprefix(f"edit/step{i:02d}/") in seen:
                ours = seen[name.removeprefix(f"edit/step{i:02d}/")]
                if kind in ("q", "k"):
                    group, axis = ("temp_attentions", 1) if "temp_" in name else ("attentions", 2)
                    every = thinned[group] if ours.shape[axis] >= 64 else 1
                    ours = ours[:, ::every] if axis == 1 else ours[:, :, ::every]
                self.note(
                    f"edit: {'branch' if kind == 'conv2' else 'queries and keys'}",
                    name,
                    ours,
                    self.case[name],
                )

    def _thinned(self) -> tuple[int, int]:
        said = self.case.about["thinned"]
        temporal, spatial = (re.search(rf"{word}: \w+ \[::(\d+)\]", said) for word in ("temporal", "spatial"))
        return int(temporal[1]) if temporal else 1, int(spatial[1]) if spatial else 1

    def free(self, group: str, ours: Tensor, theirs: Tensor, key: str, default: float) -> None:
        self.ledger.note(group, FREE, "last", relative(ours, theirs), self.case.number(key, default))


class Injection:
    """The three streams of the edit: the source at its inversion's latent, and two that take over from it."""

    def __init__(
        self, case: Case, rows: Sequence[Given], backbone: I2VGen, inverted: Tensor, up: Sequence[Time]
    ) -> None:
        self.rows = dict(zip(case.about["rows"], rows, strict=True))
        self.backbone, self.case = backbone, case
        self.source = dict(zip(up, inverted, strict=True))
        served = [name for name in backbone.sites if name.endswith(".attn1") and self._serves(name)]
        self.layers = {
            "spatial": [name for name in served if ".attentions." in name],
            "temporal": [name for name in served if ".temp_attentions." in name],
        }

    def _serves(self, name: str) -> bool:
        block, _, rest = name.partition("tentions.")
        prefix = block.rpartition(".")[0]
        return prefix in FIRST and int(rest.split(".")[0]) >= FIRST[prefix]

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        return self.guided(self.call(x, t)[0])

    def guided(self, out: Tensor) -> Tensor:
        return cfg(out[1], out[2], self.case.about["guidance_scale"])

    def call(self, x: Tensor, t: Time) -> tuple[Tensor, dict[str, Tensor]]:
        """The answers, and queries, keys and branch by the names of the case."""
        seen: dict[str, Tensor] = {}
        times = {
            kind: self.case.about[f"{kind}_injection_timesteps"] for kind in ("conv", "spatial", "temporal")
        }
        injected = {name for kind, names in self.layers.items() if t in times[kind] for name in names}
        layers = {name for names in self.layers.values() for name in names}

        def attention(where: Where, qkv: QKV) -> Tensor:
            name = where.site.name
            if name in injected:
                q, k = (each[:1].expand_as(each) for each in (qkv.q, qkv.k))
                qkv = replace(qkv, q=q, k=k)
            if name in layers:
                short = name.replace("transformer_blocks.0.", "")
                for kind, each in (("q", qkv.q), ("k", qkv.k)):
                    seen[f"{short}/{kind}"] = rearrange(each, "s b heads n d -> s b n (heads d)")
            return attend(qkv)

        def branch(where: Where, maps: Tensor) -> Tensor:
            made = maps[:1].expand_as(maps) if t in times["conv"] else maps
            seen[f"{BRANCH.rpartition('.')[0]}/conv2"] = made
            return made

        taps = replace(NO_TAPS, attention=attention, features={BRANCH: branch})
        stack = torch.stack([self.source[t], x, x])
        return self.backbone.predict(stack, t, self.rows, taps=taps), seen
