"""What a command names is looked at before the libraries are loaded that would work on it: files, prompts. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from experiments.config.choices import option
from experiments.config.declared import declared
from experiments.config.fits import check_value
from freemask.data.names import CLIP
from freemask.data.paths import existing, existing_folder
from freemask.data.shipped import list_path
from freemask.errors import UserError

AUTO = "auto"
# Files and folders that are typed below a method.
PLACES = (
    "method.mask.codebook",
    "method.mask.folder",
    "method.flow.path",
    "method.first_frame.path",
    "method.interpolation.weights",
    "tuning.path",
)
SHOWS = {"source": "what the clip shows", "target": "what it is to show"}
REFERRED = (
    "mask",
    "fusion",
    "flow",
    "first_frame",
    "interpolation",
    "task",
)  # groups that are made where a method refers to them
LISTED = ("davis", "folder")  # data whose task list is a file, or the name of one that comes along
# The least that numbers may be which are typed often; other limits are known to those who take them.
LEAST = {"frames": 1, "start": 0, "stride": 1, "limit": 1, "size": 1}
NAMED = ("world", "world_train")  # data whose clips have names that no file has


def refuse_missing(cfg: DictConfig, choices: Mapping[str, str | None]) -> None:
    """A setting that the method or the data does not look at is not looked at here."""
    _refuse_small(cfg)
    clip, root, tasks = _text(cfg, "clip"), _text(cfg, "data.root"), _text(cfg, "data.tasks")
    if choices.get("data") in NAMED and clip is not None and (Path(clip).suffix or "/" in clip):
        existing(clip)
    if clip is not None and Path(clip).expanduser().exists():
        refuse_without_prompts(clip, {key: _text(cfg, key) for key in ("source", "target") if key in cfg})
    else:
        if root is not None:
            existing_folder(root)
        if tasks is not None and choices.get("data") in LISTED:
            list_path(tasks)
    if (source := _text(cfg, "source")) is not None and not source.strip():
        wrong, todo = "the source prompt is empty", '--source "..."'
        raise UserError(wrong, came=f"source='{source}'", expected="what the clip shows", todo=todo)
    for key in PLACES:
        path = _text(cfg, key)
        if path is not None and path != AUTO and CLIP not in path:
            existing(path)
    masks = OmegaConf.select(cfg, "masks") if "masks" in cfg else None
    for name in [masks] if isinstance(masks, str) else masks or ():
        if name != "all":
            option("mask", name)


def refuse_without_prompts(clip: str, prompts: Mapping[str, object]) -> None:
    """A clip of one's own has no prompts of its own."""
    for key, prompt in prompts.items():
        if prompt is None:
            wrong, came = f"the {key} prompt is needed", f"clip={clip} alone"
            todo = "add " + " and ".join(f'{each}="..."' for each in prompts)
            todo += " (source=auto: what BLIP sees)" if "target" in prompts else ""
            expected = " and ".join(SHOWS[each] for each in prompts)
            raise UserError(wrong, came=came, expected=expected, todo=todo)


def idle_controls(model: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """What was said of ControlNets, where the model has none of which it could be said."""
    if "control" not in model or model["control"]:
        return []
    return [each for each in overrides if each.lstrip("+").startswith("model.control_")]


def refuse_idle_controls(model: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Whoever says what ControlNets are shown wants one; that there is none may be said too."""
    idle = idle_controls(model, overrides)
    if idle and not any(each.lstrip("+").startswith("model.control=") for each in overrides):
        raise UserError(
            "this model has no ControlNet of which that could be true",
            came=f"{', '.join(idle)}, model.control={'null' if model['control'] is None else model['control']}",
            expected="model.control=embedded_edges, =embedded_depth, or a folder or hub id (model=random_image: =1)",
            todo="name a ControlNet, or leave out what is said of it",
        )


def refuse_misfits(config: Mapping[str, Any], options: str) -> None:
    """Values that are not of the kind which is declared: by the verb's class of `options` for its plain keys, and by
    the classes that it will make for theirs. What only a method refers to may have no use, and is looked at there."""
    for key, annotation in declared(options).items():
        check_value(key, annotation, config[key])
    for group, value in config.items():
        if group not in REFERRED:
            _refuse_within(value, group)


def _refuse_small(cfg: DictConfig) -> None:
    for key, least in LEAST.items():
        value: Any = OmegaConf.select(cfg, key)
        for each in value if isinstance(value, ListConfig) else [value]:
            if type(each) is int and each < least:
                raise UserError(f"{key} is too small", came=f"{key}={value}", expected=f"{least} or more")


def _refuse_within(config: object, key: str) -> None:
    if isinstance(config, Mapping):
        known = declared(config["_target_"]) if "_target_" in config else {}
        for name, value in config.items():
            _refuse_within(value, f"{key}.{name}")
            if (
                name in known
                and value != MISSING
                and not (isinstance(value, Mapping) and "_target_" in value)
            ):
                check_value(f"{key}.{name}", known[name], value)


def _text(cfg: DictConfig, key: str) -> str | None:
    """None where it says nothing, or refers to something that is not there: building it tells more."""
    try:
        found: Any = OmegaConf.select(cfg, key)
    except Exception:
        return None
    return found if isinstance(found, str) else None
