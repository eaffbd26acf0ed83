"""What a user says about fusion, and the policies that it means for one edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast, get_args

from freemask import alignment
from freemask.errors import UserError, nearest
from freemask.fusion.policies import Cross, LatentBlend, Policy, Self, Temporal, Window
from freemask.masks.plan import Subject
from freemask.settings import Spellings
from freemask.types import KINDS

MODES = ("off", "plain", "masked")
Part = Literal["temporal", "cross", "self"]
ATTENTION: tuple[Part, ...] = get_args(Part)
PARTS = (*ATTENTION, "latent")
SWITCHES: Mapping[Any, str] = {True: "masked", False: "off", "on": "masked"}
Switch = Annotated[str | bool, Spellings(SWITCHES)]
CONTROLS = ("refine", "replace", "auto")
VARIANTS = ("paper", "official", "p2p")
# How long each part acts, as shares of the steps from the noisy end, where a kind of edit says nothing else.
WINDOWS: Mapping[str, Mapping[str, Any]] = {
    "style": {"temporal": 0.9, "cross": 0.9, "self": 0.3, "latent": [0.0, 0.0]},
    "attribute": {"temporal": 0.9, "cross": 0.8, "self": 0.5, "latent": [0.2, 0.8]},
    "shape": {"temporal": 0.9, "cross": 0.5, "self": 0.3, "latent": [0.2, 0.6]},
    "background": {"temporal": 0.9, "cross": 0.5, "self": 0.3, "latent": [0.2, 0.8]},
}


@dataclass(frozen=True)
class Policies:
    """The policies of one edit: one per kind of attention, and one for latents. `vanish` names the parts whose mask is
    0 everywhere (eq. 9 with delta = 1)."""

    attention: Mapping[Part, Policy]
    latent: LatentBlend | None = None
    vanish: Sequence[str] = ()
    lends_values: bool = False
    whole_frame: bool = False  # some of several edits may change everything

    def awake(self, i: int) -> bool:
        """Whether step i needs the source's attention."""
        return any(policy.awake(i) for policy in self.attention.values())


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """Which attention of the source enters the edit, while, and whether a mask keeps it out of the object.

    Each part is off, plain (the source everywhere) or masked (the edit's own where the mask is 1); true stands for
    masked, false for off. `windows` gives, by kind of edit, how long each part acts. Where paper and official code
    disagree, `variant` decides: step windows, who fills the mask in temporal attention, and the noise level of blended
    latents; also the order of masking and word mapping in eq. 11, where `paper` is our own (the mask holds the target's
    words inside, whatever words the source has there). Kinds of edit outside `masked_for` use no masks, whatever their
    parts say: masked parts act as plain ones there, and latents are left alone. `p2p` is prompt-to-prompt: the windows
    and words of the official code, every text layer whatever `most_queries` says, latents at their own level.
    """

    variant: str = "paper"
    temporal: Switch = "masked"
    cross: Switch = "masked"
    self: Switch = "masked"
    latent: Switch = "masked"
    windows: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: WINDOWS)
    control: str = "refine"
    reweight: Mapping[str, Any] | Sequence[Sequence[Any]] | None = None
    word_windows: Mapping[str, Any] | Sequence[Sequence[Any]] | None = None
    inverse: Sequence[str] = ("style",)
    masked_for: Sequence[str] = KINDS
    values: str = "edit"
    temporal_by: str = "auto"
    most_queries: int | None = None
    most_positions: int | None = None
    skip: Sequence[str] = ("transformer_in",)

    def __post_init__(self) -> None:
        _one_of("variant", self.variant, VARIANTS)
        _one_of("control", self.control, CONTROLS)
        _one_of("values", self.values, ("edit", "source"))
        _one_of("temporal_by", self.temporal_by, ("auto", "keys", "maps"))
        for part in PARTS:
            value = getattr(self, part)
            object.__setattr__(self, part, SWITCHES.get(value, value))
            _one_of(part, self.mode(part), MODES)
        for key in ("reweight", "word_windows"):
            object.__setattr__(self, key, _by_word(key, getattr(self, key)))
        for kind, windows in self.windows.items():
            _one_of("windows", kind, KINDS)
            for part, share in windows.items():
                _one_of(f"windows.{kind}", part, PARTS)
                _check_window(f"windows.{kind}.{part}", part, share)
        for key, kinds in (("inverse", self.inverse), ("masked_for", self.masked_for)):
            for kind in kinds:
                _one_of(key, kind, KINDS)

    @property
    def official(self) -> bool:
        return self.variant != "paper"

    def mode(self, part: str) -> str:
        return str(getattr(self, part))

    def uses_masks(self, kind: str) -> bool:
        """Whether an edit of this kind uses masks at all."""
        return kind in self.masked_for and "masked" in map(self.mode, PARTS)

    @property
    def held_for(self) -> list[str]:
        """The kinds of edit that hold latents outside their masks in some step."""
        return [kind for kind in self.masked_for if _lasts(self.share(kind, "latent"))]

    def policies(self, subject: Subject, *, masks: bool) -> Policies:
        """Those of this edit. Without masks, masked parts act as plain ones and latents are left alone."""
        masks = masks and self.uses_masks(subject.task.kind)
        makers = {"temporal": self._temporal, "cross": self._cross, "self": self._self}
        made: dict[Part, Policy] = {
            part: makers[part](subject, masks and self.mode(part) == "masked")
            for part in ATTENTION
            if self.mode(part) != "off"
        }
        for part, policy in made.items():
            _check_serves(part, policy, subject)
        return Policies(
            attention=made,
            latent=self._latent(subject, self.mode("latent"), masks),
            vanish=("temporal", "cross") if subject.keeps_object and not self.official else (),
            lends_values=self.values == "source",
        )

    def share(self, kind: str, part: str) -> Any:
        known = self.windows.get(kind, {})
        return known[part] if part in known else WINDOWS[kind][part]

    def _temporal(self, subject: Subject, masked: bool) -> Policy:
        window = self._window(subject, "temporal")
        if not self.official:
            return Temporal(window, masked, skip=self.skip)
        by_keys = {"auto": self.mode("temporal") == "masked", "keys": True, "maps": False}
        # FreeMask's code replaces whole maps from the window's second step on (Video-P2P's from its first), at every
        # size; or it mixes keys and queries from its first step on, in layers of at most `most_positions`.
        if not by_keys[self.temporal_by]:
            late = Window(window.first + (self.variant == "official"), window.end)
            return Temporal(late, False, keys=False, skip=self.skip)
        return Temporal(window, masked, inside="source", most_positions=self.most_positions, skip=self.skip)

    def _self(self, subject: Subject, masked: bool) -> Policy:
        inverse = subject.task.kind in self.inverse and not self.official
        return Self(self._window(subject, "self"), masked, inverse, self.most_queries)

    def _cross(self, subject: Subject, masked: bool) -> Policy:
        source, target = subject.source, subject.target
        control = cast(alignment.Control, self.control)
        return Cross(
            gates=alignment.gates(
                target,
                len(subject.times),
                self.share(subject.task.kind, "cross"),
                by_word=cast(Mapping[str, Any], self.word_windows),
                official=self.official,
            ),
            masked=masked,
            words=alignment.word_map(source, target, control=control, official=self.official),
            factors=alignment.factors(target, cast(Mapping[str, Any], self.reweight), official=self.official),
            masked_first=self.official,
            most_queries=None if self.variant == "p2p" else self.most_queries,
            lends=self.values == "source",
        )

    def _latent(self, subject: Subject, mode: str, masks: bool) -> LatentBlend | None:
        """Where masks are missing, masked blending is left out: it would undo the edit."""
        if mode == "off" or (mode == "masked" and not masks):
            return None
        window = self._window(subject, "latent")
        if self.variant == "official":  # strict on both sides, counted in steps already done
            return LatentBlend(Window(window.first, window.end - 1), late=True, masked=mode == "masked")
        return LatentBlend(window, masked=mode == "masked")

    def _window(self, subject: Subject, part: str) -> Window:
        share, steps = self.share(subject.task.kind, part), len(subject.times)
        begin, end = share if isinstance(share, Sequence) else (0, share)
        return Window(_count(begin, steps, self.official), _count(end, steps, self.official))


def _check_serves(part: str, policy: Policy, subject: Subject) -> None:
    """A part that is on and acts nowhere would look like one that acts."""
    if any(policy.serves(site, subject.grids[name]) for name, site in subject.sites.items()):
        return
    roles = [site.role for site in subject.sites.values()]
    raise UserError(
        f"fusion.{part} acts in no layer of this model",
        came=", ".join(f"{roles.count(role)} {role}" for role in dict.fromkeys(roles)) + " layers",
        expected=f"layers of {' or '.join(policy.roles)} attention within the limits of the fusion",
        todo=f"switch it off: fusion.{part}=off",
    )


def _by_word(key: str, given: Mapping[str, Any] | Sequence[Sequence[Any]] | None) -> dict[str, Any]:
    """A mapping, or the same as a list of pairs (for words that a key of the command line cannot spell)."""
    pairs = list(given.items()) if isinstance(given, Mapping) else list(given or ())
    fits = all(len(pair) == 2 and isinstance(pair[0], str) for pair in pairs)
    if not fits:
        raise UserError(
            f"fusion.{key} is no list of words", came=given, expected="{word: number} or [[word, number]]"
        )
    for word, value in pairs:
        if key == "reweight":
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            fits = _is_window(value)
        if not fits:
            raise UserError(f"fusion.{key} of '{word}' is not possible", came=value, expected="a number")
    return {str(pair[0]): pair[1] for pair in pairs}


def _count(share: float | int, steps: int, official: bool) -> int:
    """How many steps a share stands for; the small term undoes binary fractions such as 0.29 * 100."""
    return int(share * steps) if official else int(share * steps + 1e-9)


def _lasts(share: Any) -> bool:
    begin, end = share if isinstance(share, Sequence) else (0, share)
    return begin < end


def _check_window(name: str, part: str, share: Any) -> None:
    if not _is_window(share) or (part == "latent" and not isinstance(share, Sequence)):
        either = "" if part == "latent" else "a share of the steps, or "
        raise UserError(f"fusion.{name} is no window", came=share, expected=f"{either}[from, until], 0 to 1")


def _is_window(share: Any) -> bool:
    values = share if isinstance(share, Sequence) and not isinstance(share, str) else [0, share]
    return len(values) == 2 and all(isinstance(each, int | float) and 0 <= each <= 1 for each in values)


def _one_of(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(
            f"fusion: there is no {key} '{value}'",
            came=value,
            expected=", ".join(choices),
            todo=nearest(str(value), choices),
        )
