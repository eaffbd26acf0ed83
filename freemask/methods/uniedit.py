"""UniEdit (Bai et al., 2024): the clip runs beside its edit and lends it structure; where motion is edited, so does a
branch that follows the target prompt freely, and lends it attention along frames. Text attention is nobody else's.

What happens in a step stands in `freemask.methods.uniedit_step`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple, get_args

from jaxtyping import Float
from torch import Generator, Tensor

from freemask.attention.record import GIB
from freemask.diffusion.guidance import Conditions, strength
from freemask.diffusion.inversions import Inversion, Inversions
from freemask.diffusion.noise_paths import one_of
from freemask.diffusion.null_text import MOST_STEPS
from freemask.errors import UserError
from freemask.masks.plan import MaskPlan, MaskStrategy, Subject
from freemask.masks.strategies.none import NoMask
from freemask.methods import shown
from freemask.methods.common import Stopwatch, at_least, check_mask, path_warnings, share, whole
from freemask.methods.composite import composited
from freemask.methods.held import of_clip_alone, planned, wish_of
from freemask.methods.masked import MaskSettings, of_target
from freemask.methods.null_text_p2p import NullTextP2P
from freemask.methods.pnp_layers import chosen
from freemask.methods.renoised import Held
from freemask.methods.uniedit_step import AWAY, MOTION, SOURCE, Branches, Rules
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, Stream, Time, silent

Mode = Literal["appearance", "motion"]
Variant = Literal["official", "paper"]
DEEP = 10 / 16  # of the layers: the authors' first that keeps content
BEGUN = 4 / 50  # of the steps: the authors' first in which it does
STRUCTURE = {"official": 15 / 50, "paper": 0.0}  # of motion
WITH_MASK, WITHOUT = 25 / 50, 20 / 50  # of appearance
NEVER = range(0)
NOTHING = Rules(NEVER, NEVER, NEVER, (), NEVER)
STILL = "one frame: there is no attention along frames to borrow, and nothing moves"


@dataclass(frozen=True)
class UniEdit(MaskSettings):
    """`mode` appearance: for a share `structure` of the steps queries and keys of self-attention are the clip's; with a
    mask, so are its values outside, for a share `background`. motion: from the share `content` of the steps on, values
    are the clip's in these `layers` (None: the last six of sixteen), with a mask outside; queries and keys along frames
    are the motion reference's for a share `temporal` of the steps. Both end with the edit's own.

    `variant` official does what the released code does: the clip is reconstructed with guidance, from a null text for
    each time (`inner` updates at most) that stands in for every empty prompt, and both its rows lend; of appearance
    edits it is read under an empty prompt. Motion edits need a mask; keys are the clip's outside it too, structure is
    lent at first, to the motion reference as well, and inside a mask of what the target shows queries are the motion
    reference's. The authors segment that by hand; here the mask's strategy finds it in the motion reference, which is
    made once beforehand. paper: the clip's inversion lends, under its own prompt, and no mask is needed.

    The released code edits the motion of clips that the model made itself; here all clips are inverted.
    """

    steps: int = 50
    guidance: float | int | None = None
    mode: Mode = "appearance"
    structure: float | int | None = None
    background: float | int = WITH_MASK
    content: float | int = BEGUN
    layers: Sequence[str] | None = None
    temporal: float | int = 1
    prompt: Literal["source", "empty"] | None = None
    inner: int = 10
    variant: Variant = "paper"
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("steps", 1), ("inner", 0)):
            whole(name, getattr(self, name), least)
        at_least("guidance", self.guidance, 0)
        one_of("mode", self.mode, get_args(Mode))
        one_of("variant", self.variant, get_args(Variant))
        if self.prompt is not None:
            one_of("prompt", self.prompt, ("source", "empty"))
        for name in ("structure", "background", "content", "temporal"):
            share(name, getattr(self, name), "the steps")
        if self.variant == "official" and self.steps > MOST_STEPS:
            raise UserError(
                "Null texts learn less with every step, and then nothing.",
                came=f"steps={self.steps}",
                expected=f"at most {MOST_STEPS}",
                todo="method.variant=paper needs no null text",
            )

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        super().check(task, clip)
        self.needs_mask(self.acting_mask(task))
        if self.mode == "motion" and self.variant == "official":
            check_mask(self.acting_mask(task), of_target(task), lambda: replace(clip(), masks={}))

    def needs_mask(self, mask: MaskStrategy) -> None:
        if self.mode == "motion" and self.variant == "official" and isinstance(mask, NoMask):
            raise UserError(
                "The released code edits motion only with masks.",
                came="no mask for this edit, mode=motion, variant=official",
                expected="a mask, such as mask=mmc_by_layer or mask=agreement",
                todo="choose one (method.masked_for says for which kinds of edits), or method.variant=paper",
            )

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        spatial, along = _layers(backbone, self.mode)
        mask = self.acting_mask(task)
        self.needs_mask(mask)
        watch, times = Stopwatch(backbone.device), backbone.noise_path.times(self.steps)
        rules = self.rules(spatial, masked=not isinstance(mask, NoMask))
        with watch.stage("encode"):
            latents, subject = backbone.encode(clip.frames), Subject.of(backbone, clip, task, times)
        read = self.read(backbone, latents, subject, watch, progress)
        with watch.stage("masks"):
            masks = planned(mask, subject, read.inversion.kept)
        branches = Branches(
            backbone, read.given, read.lender, times, strength(self.guidance, backbone), rules, masks
        )
        noise = read.inversion.latents[-1]
        targets = None
        if rules.whole:
            targets = self.targets(branches, noise, clip, task, rng, watch, progress)
        with watch.stage("sampling"):
            made = replace(branches, targets=targets).all(noise, progress)
        with watch.stage("decoding"):
            frames = backbone.decode(made, len(clip.frames))
        warnings = [*path_warnings(backbone), *[STILL] * (len(frames) == 1 and self.mode == "motion")]
        facts = {
            "mode": self.mode,
            "structure_steps": len(rules.structure),
            "content_layers": len(rules.layers) if rules.content else 0,
            "temporals": along if rules.temporal else 0,
            "inversion_passes": read.inversion.passes,
        }
        return self.told(Edit(frames, {}, watch.seconds, warnings, facts), masks, rules, clip, times)

    def rules(self, spatial: Sequence[str], *, masked: bool) -> Rules:
        """In steps, and named layers."""
        steps, motion, official = self.steps, self.mode == "motion", self.variant == "official"

        def until(share: float | int) -> int:
            return int(share * steps + 1e-9)  # undoes binary fractions such as 0.29 * 100

        usual = STRUCTURE[self.variant] if motion else WITH_MASK if masked else WITHOUT
        structure = range(until(usual if self.structure is None else self.structure))
        if not motion:
            return Rules(structure, range(until(self.background) if masked else 0), NEVER, (), NEVER)
        content = range(until(self.content), steps)
        layers = (
            chosen("layers", spatial, self.layers, spatial[int(DEEP * len(spatial)) :]) if content else ()
        )
        temporal = range(until(self.temporal))
        return Rules(structure, NEVER, content, layers, temporal, whole=official, bound=official)

    def read(
        self, backbone: Backbone, latents: Tensor, subject: Subject, watch: Stopwatch, progress: Progress
    ) -> "Read":
        """The clip's inversion, what lends, and what all streams are given."""
        official, store = self.variant == "official", Inversions(self.inversions, self.inversions_gb)
        wish = wish_of(self.acting_mask(subject.task), subject, int(self.heat_gb * GIB))
        own, uncond, cond = (subject.given[stream] for stream in ("source", "uncond", "cond"))
        empty = self.prompt == "empty" or (self.prompt is None and official and self.mode == "appearance")
        told = own.plus(**backbone.embed("").given.parts) if empty else own
        with watch.stage("inversion"):
            first = None if empty else wish
            made = store.invert(backbone, latents, told, subject.times, wish=first, progress=progress)
            if empty and wish.keeps:  # masks are made under the clip's own prompt
                words = store.invert(backbone, latents, own, subject.times, wish=wish, progress=progress)
                made = replace(made, kept=words.kept, passes=made.passes + words.passes)
        given: dict[Stream, Conditions] = {SOURCE: told, "uncond": uncond, "cond": cond}
        lender = made
        if official:
            search = NullTextP2P(
                self.steps,
                self.guidance,
                self.inner,
                shared=True,
                inversions=self.inversions,
                inversions_gb=self.inversions_gb,
            )
            nulls = search.nulls(
                backbone, latents, replace(subject, given={**subject.given, SOURCE: told}), watch, progress
            )
            lender, given = nulls.path, {**given, AWAY[SOURCE]: nulls.uncond, "uncond": nulls.uncond}
        if self.mode == "motion":
            given |= {MOTION: cond, AWAY[MOTION]: given["uncond"]}
        return Read(made, lender, given)

    def targets(  # noqa: PLR0913 -- the parts of an edit
        self,
        branches: Branches,
        noise: Float[Tensor, "f c h w"],
        clip: Clip,
        task: EditTask,
        rng: Generator,
        watch: Stopwatch,
        progress: Progress,
    ) -> MaskPlan | None:
        """Where the target's object is: in a clip that follows the target prompt freely from the same noise."""
        backbone, mask = branches.backbone, self.acting_mask(task)
        given = {stream: branches.given[stream] for stream in ("uncond", "cond")}
        free = replace(branches, given=given, rules=NOTHING, masks=None)
        with watch.stage("motion reference"):
            made = free.all(noise, lambda _, done, total: progress("motion reference", done, total))
        with watch.stage("masks"):
            frames = backbone.decode(made, len(clip.frames)).to(clip.frames)
            shows = Clip(clip.id, frames, fps=clip.fps)
            held = Held.of(backbone, shows, of_target(task), self.steps, rng)
            held.mask_by(mask, int(self.heat_gb * GIB), progress)
            of_clip_alone(mask, held.keeps)
        return held.masks

    def told(
        self, edit: Edit, masks: MaskPlan | None, rules: Rules, clip: Clip, times: Sequence[Time]
    ) -> Edit:
        """And what the mask was, where it acts: on values of the clip, so that it holds no pixels."""
        steps = [*rules.background, *rules.content]
        if masks is None or not steps:
            edit = replace(edit, facts={"mask_used": False, **edit.facts})
            return composited(edit, clip, self.composite, lambda: None)
        acting = sorted(times[len(times) - 1 - i] for i in steps)
        acts = f"values of self-attention in steps {steps[0] + 1}-{steps[-1] + 1} of {len(times)}"
        pictures = shown.of_masks(masks, "self", acting, clip.frames)
        facts = {**masks.facts, **shown.of_picture(pictures["mask"], acts), **edit.facts}
        warnings = (*edit.warnings, *shown.warnings(pictures, acts))
        edit = replace(edit, extras=pictures, facts=facts, warnings=warnings)
        return composited(edit, clip, self.composite, lambda: shown.ever(masks, "self", acting, clip.frames))


class Read(NamedTuple):
    inversion: Inversion
    lender: Inversion
    given: Mapping[Stream, Conditions]


def _layers(backbone: Backbone, mode: Mode) -> tuple[list[str], int]:
    """Spatial self-attention by name, and how many layers look along frames."""
    roles = [site.role for site in backbone.sites.values()]
    needed = ["self", *["temporal"] * (mode == "motion")]
    if lacking := [role for role in needed if role not in roles]:
        raise UserError(
            f"UniEdit borrows in layers that this model does not have: {lacking[0]} attention.",
            came=f"mode={mode}, a model with {', '.join(dict.fromkeys(roles))} attention",
            expected="a video model with attention within frames and along them",
            todo="model=embedded, zeroscope, modelscope or lavie",
        )
    return [name for name, site in backbone.sites.items() if site.role == "self"], roles.count("temporal")
