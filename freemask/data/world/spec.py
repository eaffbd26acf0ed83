"""What a scene of the embedded world is: words, random sampling, captions, and counterfactual changes."""

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from freemask.errors import UserError, nearest

CLASSES = ("car", "truck", "boat", "fish", "bird", "cat", "ball", "star")
COLORS = MappingProxyType(
    {
        "red": (0.86, 0.13, 0.15),
        "orange": (0.98, 0.53, 0.08),
        "yellow": (0.98, 0.86, 0.16),
        "green": (0.10, 0.62, 0.22),
        "blue": (0.13, 0.30, 0.88),
        "purple": (0.53, 0.18, 0.72),
        "pink": (0.98, 0.52, 0.74),
        "white": (0.95, 0.95, 0.95),
    }
)
BACKGROUNDS = MappingProxyType(
    {
        "grass": "on grass",
        "sand": "on sand",
        "snow": "on snow",
        "night": "at night",
        "water": "on water",
        "bricks": "on bricks",
    }
)
MOTIONS = ("moving left", "moving right", "rising", "bouncing", "coming closer")
STYLES = MappingProxyType(
    {
        "plain": "",
        "comic": "comic drawing of ",
        "watercolor": "watercolor painting of ",
        "neon": "neon art of ",
    }
)
PARTS = MappingProxyType(
    {
        "car": "wheels",
        "truck": "wheels",
        "boat": "sail",
        "fish": "fins",
        "bird": "wing",
        "cat": "tail",
        "ball": "stripe",
        "star": "core",
    }
)
# Seeds below are for training, seeds in the second range are held out and never trained on.
SPLITS = MappingProxyType({"train": range(0, 1_000_000), "heldout": range(10_000_000, 10_100_000)})


@dataclass(frozen=True)
class Thing:
    """One object: its looks, its path (start, end and half-size in units of the frame's short side)."""

    cls: str
    color: str
    motion: str
    start: tuple[float, float]
    end: tuple[float, float]
    half: float
    part_color: str | None = None

    @property
    def phrase(self) -> str:
        part = f" with {self.part_color} {PARTS[self.cls]}" if self.part_color else ""
        article = "an" if self.color[0] in "aeiou" else "a"
        return f"{article} {self.color} {self.cls}{part} {self.motion}"


@dataclass(frozen=True)
class Scene:
    """Everything that a clip shows. Things are listed as the caption names them; `front` is drawn last."""

    seed: int
    things: tuple[Thing, ...]
    background: str
    style: str = "plain"
    front: int = 0
    frames: int = 8
    height: int = 64
    width: int = 64

    @property
    def caption(self) -> str:
        body = " and ".join(thing.phrase for thing in self.things)
        return f"{STYLES[self.style]}{body} {BACKGROUNDS[self.background]}"

    def name_of(self, index: int) -> str:
        """The words that single a thing out: its class, or colour and class where two share the class."""
        thing = self.things[index]
        alone = sum(other.cls == thing.cls for other in self.things) == 1
        return thing.cls if alone else f"{thing.color} {thing.cls}"


@dataclass(frozen=True)
class Wishes:
    """Properties a sampled scene must have; None leaves them to chance."""

    cls: str | None = None
    color: str | None = None
    background: str | None = None
    motion: str | None = None
    style: str | None = None
    things: int | None = None
    part: bool | None = None

    def __post_init__(self) -> None:
        known = {
            "cls": CLASSES,
            "color": COLORS,
            "background": BACKGROUNDS,
            "motion": MOTIONS,
            "style": STYLES,
        }
        for name, choices in known.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UserError(
                    f"The world has no {name} of that name.", came=value, todo=nearest(value, choices)
                )


def draw_path(
    rng: np.random.Generator, motion: str, centre: tuple[float, float]
) -> tuple[tuple[float, float], ...]:
    """Start and end of a path around a centre."""
    x, y = centre
    reach = rng.uniform(0.13, 0.2)
    shift = {
        "moving left": (reach, 0.0),
        "moving right": (-reach, 0.0),
        "rising": (0.0, reach),
        "bouncing": (-0.04, 0.09),
        "coming closer": (0.0, 0.0),
    }[motion]
    drift = rng.uniform(-0.03, 0.03, size=2)
    return (
        (x + shift[0] + drift[0], y + shift[1] + drift[1]),
        (x - shift[0] - drift[0], y - shift[1] - drift[1]),
    )


def sample_scene(
    seed: int, wishes: Wishes = Wishes(), *, frames: int = 8, height: int = 64, width: int = 64
) -> Scene:
    """The scene of a seed. 30 % show two things, half of those of one class; wishes override chance."""
    rng = np.random.default_rng([seed, 7])
    count = wishes.things or (2 if rng.random() < 0.3 else 1)
    aspect_x, aspect_y = width / min(height, width), height / min(height, width)
    classes = [wishes.cls or str(rng.choice(CLASSES))]
    colors = [wishes.color or str(rng.choice(list(COLORS)))]
    if count == 2:
        same = rng.random() < 0.35
        others = [c for c in CLASSES if c != classes[0]]
        classes.append(classes[0] if same else str(rng.choice(others)))
        colors.append(str(rng.choice([c for c in COLORS if c != colors[0]])))
    crossing = bool(count == 2 and rng.random() < 0.25)
    things = []
    for i in range(count):
        motion = (wishes.motion if i == 0 else None) or str(rng.choice(MOTIONS))
        x = rng.uniform(0.42, 0.58) if count == 1 or crossing else (0.28, 0.72)[i] + rng.uniform(-0.04, 0.04)
        y = rng.uniform(0.44, 0.56) + (0.0 if count == 1 else (-0.14, 0.14)[i])
        half = rng.uniform(0.25, 0.32) if count == 1 else rng.uniform(0.19, 0.24)
        start, end = draw_path(rng, motion, (x * aspect_x, y * aspect_y))
        wants_part = wishes.part if (wishes.part is not None and i == 0) else rng.random() < 0.12
        part = str(rng.choice([c for c in COLORS if c != colors[i]])) if wants_part else None
        things.append(Thing(classes[i], colors[i], motion, start, end, half, part))
    style = wishes.style or str(rng.choice(list(STYLES), p=[0.55, 0.15, 0.15, 0.15]))
    background = wishes.background or str(rng.choice(list(BACKGROUNDS)))
    front = int(rng.integers(count))
    return Scene(seed, tuple(things), background, style, front, frames, height, width)


@dataclass(frozen=True)
class Change:
    """A counterfactual: the same scene (paths, texture, depth) with one property replaced."""

    what: str
    to: str
    thing: int = 0

    def apply(self, scene: Scene) -> Scene:
        fields = {"class": "cls", "color": "color", "part": "part_color"}
        if self.what in fields:
            things = list(scene.things)
            things[self.thing] = dataclasses.replace(things[self.thing], **{fields[self.what]: self.to})
            return dataclasses.replace(scene, things=tuple(things))
        if self.what in ("background", "style"):
            return dataclasses.replace(scene, **{self.what: self.to})
        todo = nearest(self.what, [*fields, "background", "style"])
        raise UserError("The world cannot change that.", came=self.what, todo=todo)
