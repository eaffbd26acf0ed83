"""Which weights are on this machine, their licences, and how to get the others. Nothing is downloaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config import choices
from freemask.backbones.checkpoint import SHIPPED

INDEX = ("model_index.json",)
FILES = {"freemask.backbones.lavie.LaVie.load": ("lavie_base.safetensors", "lavie_base.pt")}


def models() -> dict[str, dict[str, str]]:
    found = {}
    for option in choices.group("model"):
        model = choices.content("model", option.name)
        path = model.get("path")
        folder = of(model) if path else None
        if folder is None:
            state = "not here" if path else "needs no weights"
        else:
            state = "present, part of the package" if path in SHIPPED else f"present: {folder}"
        found[option.name] = {"state": state, "licence": option.facts.get("licence", "")}
        if state == "not here":
            found[option.name]["get"] = option.facts.get("get", "freemask train")
    return found


def networks() -> dict[str, dict[str, str]]:
    """What metrics use."""
    from evaluation.backbones.weights import KNOWN

    found = {}
    for name, weights in KNOWN.items():
        place = weights.look()
        found[name] = {"state": f"present: {place}" if place else "not here", "licence": weights.licence}
        if not place:
            found[name]["get"] = weights.get
    return found


def of(model: Mapping[str, Any]) -> Path | None:
    """The folder of a configured model that is on this machine, with all that it needs beside it."""
    base = model.get("image_model")
    found = local(str(model["path"]), FILES.get(str(model.get("_target_")), INDEX))
    return found if base is None or local(base) else None


def local(path: str, files: Sequence[str] = INDEX) -> Path | None:
    """A folder that holds one of these files, or such a file itself; the hub's own folder counts."""
    folder = SHIPPED.get(path) or Path(path).expanduser()
    if folder.is_file():
        return folder
    if any((folder / each).is_file() for each in files):
        return folder
    if folder.exists() or path.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = (try_to_load_from_cache(path, each) for each in files)
    return next((Path(each).parent for each in cached if isinstance(each, str)), None)
