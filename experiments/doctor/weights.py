"""Which weights are on this machine, their licences, and how to get the others. Nothing is downloaded."""

from pathlib import Path

from experiments.config import choices
from freemask.backbones.checkpoint import SHIPPED


def models() -> dict[str, dict[str, str]]:
    found = {}
    for option in choices.group("model"):
        path = choices.content("model", option.name).get("path")
        folder = local(path) if path else None
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


def local(path: str) -> Path | None:
    """The folder of a model that is on this machine."""
    folder = SHIPPED.get(path) or Path(path).expanduser()
    if (folder / "model_index.json").is_file():
        return folder
    if folder.exists() or path.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(path, "model_index.json")
    return Path(index).parent if isinstance(index, str) else None
