"""What one visitor of the page has at hand: clips that were dropped, what was looked at, what was painted."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from experiments.app import painting, pictures
from experiments.app.editing import Edited, edited
from experiments.app.looked import Looked, Map
from experiments.app.looking import look_at
from experiments.app.painting import Painted
from experiments.app.settings import Asking, Settings, tasks, values
from experiments.app.work import Jobs, Shelf
from experiments.jobs.one_clip import reach
from freemask.data import images, video
from freemask.data.frames import FrameRange
from freemask.data.geometry import Geometry
from freemask.data.open import open_clip
from freemask.data.task_fill import slug
from freemask.errors import UserError
from freemask.types import EditTask

STRATEGY, MAP, PAINTED = "by the strategy", "the map shown", "my painting"
PREVIEW = 256  # pixels of the shorter side
DROPPED = (*video.SUFFIXES, *images.SUFFIXES)
Show = Callable[[float, str], None]


@dataclass(frozen=True)
class House:
    """What all visitors share. `start` are the words that every edit begins with."""

    start: tuple[str, ...] = ()
    jobs: Jobs = field(default_factory=Jobs)
    shelf: Shelf = field(default_factory=Shelf)
    visits: dict[str, "Visit"] = field(default_factory=dict)

    def visit(self, who: str) -> "Visit":
        return self.visits.setdefault(who, Visit(self))

    def leave(self, who: str) -> None:
        self.jobs.stop(who)
        self.visits.pop(who, None)

    @property
    def place(self) -> Path:
        """Where dropped clips and painted masks lie, for the commands that name them."""
        return Path(values(self.start)["paths"]["runs"]).expanduser() / "app"

    @property
    def tasks(self) -> tuple[EditTask, ...]:
        return tasks(self.start)


@dataclass(frozen=True)
class Shown:
    """Which map the sliders show, counted from 0, and where the mask of the edit is from."""

    layer: int = 0
    time: int = 0
    threshold: float = 0.2
    mask: str = STRATEGY


@dataclass
class Visit:
    house: House
    looked: Looked | None = None
    looked_with: tuple[str, ...] = ()
    painted: Painted | None = None
    turned: int = 0  # the frame that is painted on
    painting: Path | None = None
    edited: Edited | None = None
    own: dict[str, str] = field(default_factory=dict)  # paths of dropped clips, by their names
    _sheet: tuple[Looked, int, Image.Image] | None = None

    def clips(self) -> list[tuple[str, str]]:
        """What can be picked: as it is called, and the file or the task."""
        known = [(f"{task.kind}: {task.source}", task.id) for task in self.house.tasks]
        return [*self.own.items(), *known]

    def keep(self, dropped: str) -> str:
        """A copy that stays when the page is closed: the command names it."""
        path = Path(dropped)
        if path.suffix.lower() not in DROPPED:
            came = path.suffix or "a name without an ending"
            raise UserError("this is no clip", came=came, expected=f"a file in one of {' '.join(DROPPED)}")
        with path.open("rb") as file:  # it may be large
            told = hashlib.file_digest(file, "sha256").hexdigest()[:8]
        kept = self.house.place / "clips" / f"{slug(path.name)}-{told}{path.suffix.lower()}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)
        self.own[path.name] = str(kept)
        return str(kept)

    def frames(self, settings: Settings) -> tuple[Float[Tensor, "f 3 h w"], float | int]:
        """The clip in a small size, to see which one it is; and its frames in a second."""
        if settings.is_file(self.house.start):
            asked = reach(FrameRange(count=settings.frames))
            clip = open_clip(settings.clip, Geometry(short_side=PREVIEW), asked)
        else:
            asking = Asking.of(replace(settings, source="", target="", words="").overrides(self.house.start))
            clip = asking.data.clip(asking.task)
        return clip.frames, clip.fps

    def chosen(self, settings: Settings, shown: Shown) -> Settings:
        """With the mask that the edit is to have."""
        if shown.mask == MAP:
            return replace(settings, masks=self._looked().words(shown.layer, shown.time, shown.threshold))
        if shown.mask == PAINTED:
            if self.painting is None:
                raise UserError(
                    "nothing is painted yet", todo="paint in part 2, then press 'Use this painting'"
                )
            return replace(settings, masks=painting.words(self.painting))
        return settings

    def words(self, settings: Settings, shown: Shown) -> list[str]:
        return self.chosen(settings, shown).overrides(self.house.start)

    def command(self, settings: Settings, shown: Shown) -> str:
        return self.chosen(settings, shown).command(self.house.start)

    def look(self, settings: Settings, who: str, show: Show) -> Looked:
        """By the strategy: a map or a painting that was chosen before changes nothing of what is seen."""
        words = settings.overrides(self.house.start)
        with self.house.jobs.one(who, show) as reporter:
            self.looked = look_at(words, self.house.shelf, reporter)
        self.looked_with = tuple(words)
        return self.looked

    def outdated(self, settings: Settings) -> bool:
        """Whether what was looked at belongs to other settings."""
        return self.looked is not None and self.looked_with != tuple(settings.overrides(self.house.start))

    def map(self, shown: Shown) -> Map:
        return self._looked().map(shown.layer, shown.time, shown.threshold)

    def sheet(self, frame: int) -> Image.Image:
        """Every map of a frame."""
        looked = self._looked()
        if self._sheet is None or self._sheet[:2] != (looked, frame):
            self._sheet = (looked, frame, pictures.sheet(looked, frame))
        return self._sheet[2]

    def take(self, layer: np.ndarray | None, everywhere: bool) -> Painted:
        """What was painted on the frame at hand."""
        if self.painted is None or layer is None:
            raise UserError(
                "nothing is painted yet", todo="press 'Start from the map shown' or 'Start with nothing'"
            )
        self.painted = self.painted.taken(self.turned, layer, everywhere)
        return self.painted

    def begin(self, shown: Shown | None) -> Painted:
        """A painting that begins with the map shown, or, for None, with nothing."""
        looked = self._looked()
        mask = None if shown is None else self.map(shown).mask
        self.painted = Painted.begun(looked.clip.frames, mask, looked.clip.fps)
        return self.painted

    def use(self, settings: Settings) -> Path:
        """Leaves the painting in a folder, which the command will name."""
        if self.painted is None:
            raise UserError(
                "nothing is painted yet", todo="press 'Start from the map shown' or 'Start with nothing'"
            )
        self.painting = self.painted.leave(self.house.place / "masks", Path(settings.clip).name)
        return self.painting

    def edit(self, settings: Settings, shown: Shown, who: str, show: Show) -> Edited:
        words = self.words(settings, shown)
        with self.house.jobs.one(who, show) as reporter:
            self.edited = edited(words, self.house.shelf, reporter)
        return self.edited

    def _looked(self) -> Looked:
        if self.looked is None:
            raise UserError("nothing was looked at yet", todo="press 'Look' first")
        return self.looked
