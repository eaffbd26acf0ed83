"""Stored word maps of a calibration, and stored mean IoU numbers, against ours."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from freemask.alignment import official_columns
from freemask.attention.record import Recording, heat_of_words, recorder
from freemask.errors import UserError
from freemask.masks.ops import Binarise, resize, two_class_iou
from freemask.types import Progress, Taps
from tests.official import inversion
from tests.official.case import Case
from tests.official.ledger import FORCED, FREE, Ledger, relative
from tests.official.slices import layers
from tests.official.workshop import Watched

EXACT = 1e-12  # mean IoU: the counts must be the same, the last digit of a mean may differ
TILED = 8  # the authors' picture of maps is as wide as so many frames


def is_miou(case: Case) -> bool:
    return "miou" in case.about


def is_maps(case: Case) -> bool:
    return any(case.names("camap/"))


def maps(
    case: Case, backbone: Watched, ledger: Ledger, *, steps: int, free: bool, progress: Progress
) -> None:
    """The words' maps of every layer and time. The authors find words in the editing prompts."""
    columns = sorted(
        {
            column
            for prompt, words in zip(
                case.about["config"]["editing_config"]["editing_prompts"], words_of(case), strict=False
            )
            for word in ([words] if isinstance(words, str) else words)
            for column in official_columns(backbone.embed(prompt), word)
        }
    )
    keeps = [heat_of_words("map", columns, stream="source")] if columns else []
    record = Recording()
    inversion.forced(case, backbone, ledger, [(keeps, record)], range(steps), progress)
    limit = case.number("teacher_forced", 1e-4)
    judge(case, backbone, record, ledger, (FORCED, limit))
    if free:
        record = Recording()
        text = backbone.embed(case.about["source_prompt"])
        taps = Taps(attention=recorder(keeps, record))
        inversion.compare_free(case, inversion.free(case, backbone, text, taps, progress), ledger)
        judge(case, backbone, record, ledger, (FREE, case.number("inversion_free_running", 1e-3)))


def words_of(case: Case) -> list:
    return list(case.editing.get("word") or ())


def judge(case: Case, backbone: Watched, record: Recording, ledger: Ledger, how: tuple[str, float]) -> None:
    heat, times = record.all("map"), backbone.noise_path.times(case.steps)
    shape = case.tensors["inv/latents" if "inv/latents" in case else "vae/sample"]["shape"]
    known = layers(backbone.sites, *shape[-2:])
    done = {t for _, t in heat}
    for name in case.names("camap/"):
        found = re.fullmatch(r"camap/maps_(\w+_cross)_(\d+)_step(\d+)", name)
        if found is None:
            ledger.note("word maps", how[0], f"{name}: unknown name", 1.0, 0.0)
            continue
        t = times[int(found[3])]
        if done and t not in done:
            continue
        theirs = case[name]
        ours = heat.get((known[f"{found[1]}/{found[2]}"], t))
        ours = torch.zeros_like(theirs) if ours is None else tiled(ours)
        ledger.note(
            "calibration: word maps", how[0], name.removeprefix("camap/maps_"), relative(ours, theirs), how[1]
        )


def tiled(heat: Tensor) -> Tensor:
    """`f h w` as the authors lay it out: frames side by side, in rows of eight."""
    return heat.permute(1, 0, 2).reshape(-1, TILED * heat.shape[-1])


# --- mean IoU -------------------------------------------------------------------------------------------------


def miou(case: Case, ledger: Ledger) -> None:
    if "ground_truth" in case.about:
        _of_pictures(case, ledger)
    else:
        _of_maps(case, ledger)


def _of_pictures(case: Case, ledger: Ledger) -> None:
    """Two pictures, compared pixel by pixel of their flattened rows as the authors do, and aligned."""
    above = int(case.about["threshold"])
    truth, found = (grey(case, case.about[key]) > above for key in ("ground_truth", "prediction"))
    shared = min(truth.numel(), found.numel())
    ours = two_class(found.flatten()[:shared], truth.flatten()[:shared])
    ledger.note("mean IoU", FORCED, "as the authors compare", abs(ours - case.about["miou"]), EXACT)
    aligned = case.about.get("aligned_reference")
    if aligned:
        fitted = resize(found[None], truth.shape[0], truth.shape[1])[0]
        error = abs(two_class(fitted, truth) - aligned["miou"])
        ledger.note("mean IoU", FORCED, "aligned first", error, EXACT)


def _of_maps(case: Case, ledger: Ledger) -> None:
    """Stored maps, made binary as the manifest says, against annotated frames."""
    source = Case.read(case.path.with_name(f"{case.about['maps']}.json"))
    folder = re.match(r"[\w./-]*/", case.about["gt"])
    above = re.search(r"grey > (\d+)", case.about["gt"])
    threshold = re.search(r"> (0?\.\d+)", case.about["pred"])
    if not (folder and above and threshold):
        raise UserError("the manifest does not say how masks are made", came=case.about["gt"])
    truths = [
        grey(case, str(path)) > int(above[1]) for path in sorted((case.folder / folder[0]).glob("*.png"))
    ]
    binarise = Binarise("official", pool=0, threshold=float(threshold[1]))
    numbers: Mapping[str, float] = case.about["miou"]
    for name, theirs in numbers.items():
        flat = source[f"camap/{name}"]
        side = flat.shape[-1] // TILED
        heat = flat.reshape(side, -1, side).permute(1, 0, 2)
        every = truths[0].shape[-1] // side
        truth = torch.stack([each[every // 2 :: every, every // 2 :: every] for each in truths[: len(heat)]])
        ours = two_class(binarise.mask(heat, side, side), truth)
        ledger.note("mean IoU", FORCED, name, abs(ours - theirs), EXACT)


def two_class(found: Tensor, truth: Tensor) -> float:
    return two_class_iou(found.float(), truth.float())


def grey(case: Case, name: str) -> Tensor:
    path = case.folder / name
    try:
        with Image.open(path) as picture:
            picture.draft("L", picture.size)  # of a JPEG, the luminance as it is stored
            return torch.from_numpy(np.array(picture.convert("L")))
    except OSError as error:
        raise UserError("a picture of the case cannot be read", came=path, expected=error) from error
