"""Who compares a case: one file for each family, found by the repository that the manifest names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from freemask.errors import UserError
from freemask.types import Progress
from tests.official.case import Case
from tests.official.ledger import Ledger

# A file has `compare(case, ledger, wanted)`. What it cannot run yet, it says in one line of remarks.
FILES = {
    "FreeMask": "fused",
    "FateZero": "fused",
    "FlowEdit": "flow",
    "FiVE-Bench": "flow",
    "TokenFlow": "tokenflow",
    "ControlVideo": "control",
    "VideoGrain": "control",
    "AnyV2V": "anyv2v",
    "Video-P2P": "video_p2p",
    "Tune-A-Video": "tune_a_video",
}


@dataclass(frozen=True)
class Wanted:
    """`steps`: only so many denoising steps, and no free-running part. `extra`: more overrides."""

    steps: int | None
    free: bool
    extra: Sequence[str]
    progress: Progress


Compare = Callable[[Case, Ledger, Wanted], None]


def of(case: Case) -> Compare:
    said = str(case.about.get("official_repo", ""))
    name = next((file for sign, file in FILES.items() if sign in said), None)
    if name is None:
        raise UserError(
            "the case is of no repository that is known",
            came=said or "no official_repo in the manifest",
            expected=", ".join(FILES),
        )
    return import_module(f"tests.official.{name}").compare
