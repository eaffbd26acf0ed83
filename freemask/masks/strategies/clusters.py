"""The clip's own groups: cells that look at the same places in self-attention, found by k-means frame by frame; the
group on which the edit's words have the most heat is the mask (as VideoGrain does without a segmentation)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Generator, Tensor

from freemask.attention.record import Keep, Recording, heat_of_words
from freemask.errors import UserError
from freemask.masks.around import columns, placed
from freemask.masks.ops import resize
from freemask.masks.plan import Keeps, MaskPlan, Subject
from freemask.masks.words import check_phrase
from freemask.types import QKV, Time, Where

WHO, HEAT = "who looks at whom", "heat"
TRIES, ROUNDS = 10, 50  # of k-means: the best of so many starts counts


@dataclass(frozen=True)
class Clusters:
    """`clusters` is how many groups a frame falls into. They are made in the layers of one `stride` (None: the level
    below the finest), as the mean over these and over so many `times`. Groups are of a class at the finest: two things
    of one class look at each other. `seed` is that of the starts."""

    clusters: int = 3
    stride: int | None = None
    times: int = 4
    phrase: str = "described"
    seed: int = 0

    def __post_init__(self) -> None:
        check_phrase(self.phrase)
        for name, least in (("clusters", 2), ("times", 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f"mask.{name} is too small", came=getattr(self, name), expected=f"at least {least}"
                )

    def check_layers(self, lacking: Collection[str]) -> None:
        """`lacking`: which kinds of attention a model has not, as far as that is known before it is loaded."""
        if "self" in lacking:
            raise UserError(
                "this mask groups what looks at what within a frame",
                came="a model without spatial self-attention",
                expected="an image model, or a video model with layers for single frames",
                todo="mask=agreement, mask=mmc_by_layer",
            )

    def keeps(self, subject: Subject) -> Keeps:
        layers, times = self.layers(subject), self.chosen(subject.times)
        texts = [
            name
            for name, site in subject.sites.items()
            if site.role == "cross" and site.stride == self.level(subject)
        ]
        heat = heat_of_words(HEAT, columns(subject, self.phrase), sites=texts, times=times)
        who = Keep(WHO, lambda where: where.site.name in layers and where.t in times, within_frames)
        return Keeps((who, heat))

    def plan(self, subject: Subject, source: Recording, target: Recording) -> MaskPlan:
        maps, heats = (
            torch.stack(list(source.all(name).values())).mean(0).float().cpu() for name in (WHO, HEAT)
        )
        rng = torch.Generator().manual_seed(self.seed)
        groups = [grouped(each, self.clusters, rng) for each in maps]
        mask = torch.stack([hottest(each, heat) for each, heat in zip(groups, heats, strict=True)])
        facts = {
            "mask_layer": f"groups of {len(self.layers(subject))} self-attentions",
            "mask_time": f"mean of {len(self.chosen(subject.times))}",
            "mask_grid": "x".join(map(str, mask.shape[1:])),
        }
        made = MaskPlan(lambda wanted: resize(mask, wanted.grid.height, wanted.grid.width), facts)
        return placed(subject, made)

    def level(self, subject: Subject) -> int:
        strides = sorted({site.stride for site in subject.sites.values() if site.role == "self"})
        if not strides:
            self.check_layers({"self"})
        wanted = strides[min(1, len(strides) - 1)] if self.stride is None else self.stride
        if wanted not in strides:
            raise UserError(
                "no layer has this stride",
                came=f"mask.stride={wanted}",
                expected=", ".join(map(str, strides)),
            )
        return wanted

    def layers(self, subject: Subject) -> list[str]:
        level = self.level(subject)
        return [name for name, site in subject.sites.items() if site.role == "self" and site.stride == level]

    def chosen(self, times: Sequence[Time]) -> list[Time]:
        """Evenly from the times of the path, both ends left out."""
        count = min(self.times, len(times))
        return [times[int((place + 0.5) * len(times) / count)] for place in range(count)]


def within_frames(where: Where, qkv: QKV) -> Float[Tensor, "f n m"]:
    """Of the last stream, the mean over heads; each frame looks at itself alone, whatever the model has."""
    q, k = qkv.q[-1], qkv.k[-1]
    return torch.stack(
        [
            torch.softmax(a @ b.transpose(-1, -2) * qkv.scale, dim=-1).mean(0)
            for a, b in zip(q, k, strict=True)
        ]
    )


def grouped(rows: Float[Tensor, "n m"], count: int, rng: Generator) -> Int[Tensor, " n"]:
    """The group of each row: the best of several k-means, which begin at rows far from each other."""
    best, found = float("inf"), torch.zeros(len(rows), dtype=torch.long)
    for _ in range(TRIES):
        middles = _begun(rows, count, rng)
        for _ in range(ROUNDS):
            labels = torch.cdist(rows, middles).argmin(1)
            made = torch.stack(
                [
                    rows[labels == each].mean(0) if (labels == each).any() else middles[each]
                    for each in range(count)
                ]
            )
            if torch.equal(made, middles):
                break
            middles = made
        distance, labels = torch.cdist(rows, middles).min(1)
        cost = float(distance.square().sum())
        if cost < best:
            best, found = cost, labels
    return found


def _begun(rows: Float[Tensor, "n m"], count: int, rng: Generator) -> Float[Tensor, "k m"]:
    """k-means++: each next middle is drawn by the square of its distance from those there are."""
    places = [int(torch.randint(len(rows), (1,), generator=rng))]
    for _ in range(count - 1):
        far = torch.cdist(rows, rows[places]).amin(1).square()
        alike = not bool((far > 0).any())
        places.append(int(torch.multinomial(torch.ones_like(far) if alike else far, 1, generator=rng)))
    return rows[places]


def hottest(groups: Int[Tensor, " n"], heat: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """The group in which the heat is highest on average; without heat, none."""
    flat = rearrange(heat, "h w -> (h w)").nan_to_num(0)
    if not bool((flat > 0).any()):
        return torch.zeros_like(heat)
    means = {int(each): float(flat[groups == each].mean()) for each in groups.unique()}
    best = max(means, key=lambda each: means[each])
    return rearrange((groups == best).float(), "(h w) -> h w", h=heat.shape[0])
