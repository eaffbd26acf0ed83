"""VideoGrain: its inversion, its trajectories and attention along them, what it would inject, and its edit where
nothing else acts."""

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from freemask.attention.along import Along
from freemask.diffusion.guidance import cfg
from freemask.types import Given, Taps, Time
from tests.official.along import Drawn, Injected
from tests.official.control_run import Run

MODULATED = (
    "not yet run: modulated attention and blending (edit steps in the window, edit/latents, layout, blend)"
)


class VideoGrain(Run):
    """The authors' inversion is told the time of the level that it leaves, and starts at the first of them."""

    look = ("model.attention=all", "model.least_channels=0")

    def run(self) -> None:
        case, about = self.case, self.case.about
        self.along = Along({}, bool(about["old_qk"]))
        if "flow/predicted" in case:
            found = Drawn(self).all()
            self.along = replace(
                self.along, paths={each: found[each] for each in about["flatten_res_factors"]}
            )
        self.prompts()
        up = about["timesteps_fed_to_networks"]["inv"]
        latents = [case["inv/latents/00"][0], *case["inv/latents"]]
        latents = [rearrange(each, "c f h w -> f c h w") for each in latents]
        for j in self.steps(len(up)):
            self.wanted.progress("inversion, step by step", j, len(up))
            to = up[j] + 1000 // about["inversion_steps_nominal"]
            self.upward(j, latents[j], latents[j + 1], up[j], to)
        down = about["timesteps_fed_to_networks"]["edit"]
        before = [latents[-1], *(rearrange(each, "c f h w -> f c h w") for each in case["edit/latents"])]
        for i in self.steps(len(down)):
            self.wanted.progress("edit, step by step", i, len(down))
            self.downward(i, before[i], down[i])
        self.ledger.remark(MODULATED)

    def prompts(self) -> None:
        about = self.case.about
        plain = {
            "text/controlnet_inv": ("", about["source_prompt"]),
            "text/controlnet_edit": (about["negative_prompt"], about["prompts_global_then_local"][0]),
        }
        for name, prompts in plain.items():
            ours = torch.stack([self.backbone.embed(prompt).tokens for prompt in prompts])
            self.note("text: embeddings", name, ours, self.case[name])

    def call(self, x: Tensor, t: Time, network: str, control: str, key: str, taps: Taps) -> Tensor:
        """Both halves, and what the ControlNet adds to them."""
        more = {"control": self.images, "control_strength": self.strength}
        pairs = zip(("uncond", "cond"), self.case[network], self.case[control], strict=True)
        given = {name: Given({"text": own, "control_text": beside, **more}) for name, own, beside in pairs}
        with self.residuals() as found:
            both = self.backbone.predict(torch.stack([x, x]), t, given, taps=taps)
        self.added(key, found, streams=2, strength=float(self.strength))
        return both

    def upward(self, j: int, x: Tensor, after: Tensor, t: Time, to: Time) -> None:
        case, texts = self.case, "text/controlnet_inv"
        seen = Injected(self.along, self.backbone) if case.about["use_pnp"] else None
        taps = self.along.taps if seen is None else seen.taps
        both = self.call(x, t, texts, texts, f"inv/cnet/step{j:02d}", taps)
        if seen is not None:
            seen.compare(self, j)
        theirs = rearrange(case["inv/eps_cond"][j], "c f h w -> f c h w")
        self.note("inv: prediction", f"step {j}", both[1], theirs)
        self.output("inv", j, both)
        self.note("inv: latents", f"step {j}", self.path.step(x, both[1], now=t, call=t, to=to), after)

    def downward(self, i: int, x: Tensor, t: Time) -> None:
        about = self.case.about
        key = f"edit/cnet/step{i:02d}"
        both = self.call(x, t, "text/cond_unet", "text/controlnet_edit", key, self.along.taps)
        injected = about["use_pnp"] and i < about["inject_step"]
        if injected or about.get("use_freeu") or i < about["modulation_end_step"]:
            return
        self.output("edit", i, both)
        theirs = rearrange(self.case["edit/eps_guided"][i], "c f h w -> f c h w")
        self.note("edit: prediction", f"step {i}", cfg(*both, about["guidance_scale"]), theirs)

    def output(self, part: str, step: int, both: Tensor) -> None:
        name = f"{part}/unet_out/{step:02d}"
        if name in self.case:
            theirs = rearrange(self.case[name], "s c f h w -> s f c h w")
            self.note(f"{part}: network output", name, both, theirs)
