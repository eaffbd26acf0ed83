"""VideoGrain: inversion, trajectories, regions, attention drawn to them, features taken over, and what is put back."""

from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from freemask.attention.along import Along
from freemask.diffusion.guidance import cfg
from freemask.diffusion.inversions import Inversion
from freemask.masks.plan import MaskPlan, Subject
from freemask.methods.regional import Layout, phrases_of
from freemask.methods.videograin import VideoGrain as Method
from freemask.methods.videograin_step import Grain, Outside
from freemask.types import Clip, EditTask, Given, Grid, LocalEdit, Time
from freemask.words import holds
from tests.official.along import Drawn, Injected
from tests.official.control_run import Run
from tests.official.drawn import Drawings


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
        grain = self.grain(latents, down[::-1])
        before = [latents[-1], *(rearrange(each, "c f h w -> f c h w") for each in case["edit/latents"])]
        for i in self.steps(len(down)):
            self.wanted.progress("edit, step by step", i, len(down))
            self.downward(grain, i, before[i], before[i + 1])

    def prompts(self) -> None:
        about = self.case.about
        plain = {
            "text/controlnet_inv": ("", about["source_prompt"]),
            "text/controlnet_edit": (about["negative_prompt"], about["prompts_global_then_local"][0]),
        }
        for name, prompts in plain.items():
            ours = torch.stack([self.backbone.embed(prompt).tokens for prompt in prompts])
            self.note("text: embeddings", name, ours, self.case[name])

    # ---- the way up

    def upward(self, j: int, x: Tensor, after: Tensor, t: Time, to: Time) -> None:
        case, texts = self.case, self.case["text/controlnet_inv"]
        seen = Injected(self.along, self.backbone) if case.about["use_pnp"] else None
        taps = self.along.taps if seen is None else seen.taps
        more = {"control": self.images, "control_strength": self.strength}
        given = {
            name: Given({"text": own, **more}) for name, own in zip(("uncond", "cond"), texts, strict=True)
        }
        with self.residuals() as found:
            both = self.backbone.predict(torch.stack([x, x]), t, given, taps=taps)
        self.added(f"inv/cnet/step{j:02d}", found, streams=2, strength=float(self.strength))
        if seen is not None:
            seen.compare(self, j)
        theirs = rearrange(case["inv/eps_cond"][j], "c f h w -> f c h w")
        self.note("inv: prediction", f"step {j}", both[1], theirs)
        self.output("inv", j, both)
        self.note("inv: latents", f"step {j}", self.path.step(x, both[1], now=t, call=t, to=to), after)

    # ---- the way down, by the product

    def grain(self, latents: list[Tensor], times: list[Time]) -> Grain:
        """An edit as it stands before its first step, with the stored inversion and regions."""
        case, about = self.case, self.case.about
        steps = about["num_inference_steps"]
        method = Method(
            steps=steps,
            guidance=about["guidance_scale"],
            drawn=about["modulation_end_step"] / steps,
            inject=about["inject_step"] / steps if about["use_pnp"] else 0,
            phrase="all",
            negative=about["negative_prompt"],
            variant="official",
        )
        frames = torch.zeros(len(self.images), 3, *self.images.shape[-2:])
        clip = Clip("clip", frames, conditions={"control": self.images, "control_strength": self.strength})
        subject = Subject.of(self.backbone, clip, self.task(), times)
        clean = rearrange(case["blend/source_latents"][0], "c f h w -> f c h w")
        inversion = Inversion([latents[0], *latents], times)
        grain = method.grain(
            self.backbone, subject, inversion, self.layout(subject), self.along, Outside(clean, self.noise)
        )
        for name, given in grain.given.items():
            theirs = case["text/cond_unet"][int(name == "cond")]
            self.note("text: embeddings", f"text/cond_unet, {name}", given.parts["text"], theirs)
        self.regions(grain)
        return grain

    def task(self) -> EditTask:
        """A region without a text, or one whose words are not in the prompt, is a region of which nothing is said."""
        about = self.case.about
        target, *said = about["prompts_global_then_local"]
        lacking = len(about["regions_in_order"]) - len(said)
        said = [each if each and holds(target, each) else "" for each in [*said, *[""] * lacking]]
        edits = tuple(LocalEdit({f"thing {k}": each}, "shape") for k, each in enumerate(said))
        words = {old: new for edit in edits for old, new in edit.words.items()}
        return EditTask("case", "clip", about["source_prompt"], target, words, "shape", edits=edits)

    def layout(self, subject: Subject) -> Layout:
        stored = self.case["layout/regions"].float()[:, :, 0]  # f r h w

        def plan(place: int) -> MaskPlan:
            return MaskPlan(
                lambda wanted: interpolate(stored[:, place : place + 1], tuple(wanted.grid)[1:])[:, 0]
            )

        phrases = phrases_of(subject.task.each, subject.target, described=False, first=True)
        return Layout([plan(place) for place in range(stored.shape[1])], phrases, official=True)

    def noise(self) -> Tensor:
        return rearrange(self.case["blend/noise"][self.at], "c f h w -> f c h w")

    def regions(self, grain: Grain) -> None:
        """Which pairs are of one region, and how large each is, at every level that is stored."""
        case, frames = self.case, len(self.images)
        layout: Any = grain.layout
        t = grain.times[-1]
        for name in case.names("layout/self_map/"):
            tokens = int(name.rpartition("/")[2])
            site = next(each for each in self.backbone.sites.values() if self.cells(each) == tokens)
            grid = self.backbone.grid(site, frames, *self.images.shape[-2:])
            members = layout.within(t, grid)
            every = rearrange(members, "f n r -> (f n) r")
            self.exact("self_map", tokens, (every @ every.T > 0), case[name][0].bool())
            size = rearrange(1 - layout.share_of_clip(members), "f n -> 1 (f n) 1")
            self.note(
                "layout: sizes",
                f"self, {tokens} (theirs in half precision)",
                size.half().float(),
                case[f"layout/self_size/{tokens}"].float(),
            )
            members = layout.members("cross", t, grid)
            words = layout.words(77)
            self.exact(
                "cross_map", tokens, (members @ words.T > 0), case[f"layout/cross_map/{tokens}"][:, 0].bool()
            )
            size = 1 - layout.share_of_frame(members)
            self.note(
                "layout: sizes", f"cross, {tokens}", size, case[f"layout/cross_size/{tokens}"][:, 0, :, 0]
            )
        union = layout.any(t, Grid(*case["blend/mask"].shape[2:]))
        self.exact("blend/mask", "latent", union.bool(), case["blend/mask"][0, 0].bool())

    def cells(self, site: Any) -> int:
        grid = self.backbone.grid(site, len(self.images), *self.images.shape[-2:])
        return grid.height * grid.width

    def exact(self, what: str, where: object, ours: Tensor, theirs: Tensor) -> None:
        self.ledger.note(
            f"layout: {what}", "forced", str(where), 0.0 if torch.equal(ours, theirs) else 1.0, 0.0
        )

    def downward(self, grain: Grain, i: int, x: Tensor, after: Tensor) -> None:
        case, t, self.at = self.case, grain.times[-1 - i], i
        drawings = Drawings(self, grain, i)
        with self.residuals() as found, drawings.watched():
            both = grain.both(x, t)
        self.added(f"edit/cnet/step{i:02d}", found, streams=2, strength=float(self.strength))
        drawings.compare()
        self.output("edit", i, both)
        eps = cfg(*both, grain.guidance)
        self.note(
            "edit: prediction", f"step {i}", eps, rearrange(case["edit/eps_guided"][i], "c f h w -> f c h w")
        )
        below = grain.levels[grain.levels.index(t) - 1]
        made = self.path.step(x, eps, now=t, call=t, to=below)
        if "edit/latents_before_blend" in case:
            theirs = rearrange(case["edit/latents_before_blend"][i], "c f h w -> f c h w")
            self.note("edit: latents before the clip is put back", f"step {i}", made, theirs)
        blended = grain.after(made, i, t)
        assert blended is not None
        self.note("edit: latents", f"step {i}", blended, after)

    def output(self, part: str, step: int, both: Tensor) -> None:
        name = f"{part}/unet_out/{step:02d}"
        if name in self.case:
            theirs = rearrange(self.case[name], "s c f h w -> s f c h w")
            self.note(f"{part}: network output", name, both, theirs)
