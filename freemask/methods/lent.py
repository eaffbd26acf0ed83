"""What an edit borrows of the source's attention: kept from the pass that lends it, or made again beside the edit."""

from collections.abc import Sequence
from dataclasses import dataclass

from freemask.attention.features import Features
from freemask.attention.record import Spy
from freemask.attention.shelf import SHELF, Wanted
from freemask.diffusion.inversions import Inversion, key_of
from freemask.fusion.settings import Policies
from freemask.masks.plan import Subject
from freemask.types import QKV, Backbone, Time, Where

CHOICES = ("auto", "recompute", "cache")
AUTO_GB = 1  # of features that are kept without being asked for


@dataclass
class Lent:
    """`spy` is to see the pass that lends; afterwards `settled` are the features. None: the source runs again."""

    kept: Features | None = None
    spy: Spy | None = None
    known: bool = False  # they are those of an edit before this one
    shelf: tuple[str, Wanted] | None = None  # where they are put for the next edit

    def settled(self, backbone: Backbone) -> Features | None:
        if self.kept is None or self.kept.failed:
            return None
        if self.shelf is not None and not self.known:
            SHELF.put(backbone, *self.shelf, self.kept)
        return self.kept


def cached(
    backbone: Backbone,
    policies: Policies,
    subject: Subject,
    place: str,
    budget_gb: float | int,
    form: str | None,
) -> Lent:
    """Kept at a place in a form, for this edit alone."""
    if not policies.attention:
        return Lent()
    kept = Features(place, budget_gb, device=backbone.device, form=form)
    return Lent(kept, _spy(kept, policies, subject))


def where_small(  # noqa: PLR0913 -- what an inversion is known by
    backbone: Backbone,
    policies: Policies,
    subject: Subject,
    clean: Inversion,
    path: Sequence[Time],
    solver: str,
    *,
    again: bool,
) -> Lent:
    """Kept on the device where that takes little memory. `again`: the pass that lends them is no inversion, and differs
    from edit to edit."""
    if not policies.attention or (len(clean.latents) > 1 and not again):
        return Lent()
    shelf = None
    if not again:
        more = (solver, "features", policies.lends_values)
        key = key_of(backbone, clean.latents[0], subject.given["source"], path, more)
        shelf = key, _wanted(backbone, policies, subject)
        found = SHELF.take(backbone, *shelf)
        if found is not None:
            return Lent(found, known=True)
    SHELF.clear(backbone)  # one clip's at a time
    kept = Features("device", AUTO_GB, device=backbone.device, may_fail=True)
    return Lent(kept, _spy(kept, policies, subject), shelf=shelf)


def _wanted(backbone: Backbone, policies: Policies, subject: Subject) -> Wanted:
    last = len(subject.times) - 1
    frames, _, height, width = subject.clip.frames.shape
    grids = {
        site.name: (site, backbone.grid(site, frames, height, width)) for site in backbone.sites.values()
    }
    found: set[tuple[str, Time]] = set()
    for policy in policies.attention.values():
        layers = [name for name, (site, grid) in grids.items() if policy.serves(site, grid)]
        steps = [t for place, t in enumerate(subject.times) if policy.awake(last - place)]
        found |= {(name, t) for name in layers for t in steps}
    return found


def _spy(kept: Features, policies: Policies, subject: Subject) -> Spy:
    """Keeps, of the pass that lends, what the policies will want at the mirror step of the edit."""
    steps = {t: len(subject.times) - 1 - place for place, t in enumerate(subject.times)}

    def spy(where: Where, qkv: QKV) -> None:
        if where.t not in steps:
            return
        i, acting = steps[where.t], policies.attention.values()
        if any(policy.awake(i) and policy.serves(where.site, where.grid) for policy in acting):
            kept.put(where, qkv, values=policies.lends_values)

    return spy
