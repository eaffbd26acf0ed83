"""What goes into the identity of a run: everything that changes a result, and nothing that does not.

A setting counts with its value unless it says something else where it is declared (`freemask/settings.py`).
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from operator import getitem
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object

from experiments.config.build import build
from experiments.config.fingerprint import Identity as Identity
from experiments.config.fingerprint import digest
from freemask.backbones.checkpoint import COMPONENTS, SHIPPED, SHIPPED_PARTS
from freemask.backbones.identity import of_file, of_folder
from freemask.backbones.weightless import find
from freemask.control.images import WORDS
from freemask.data.names import CLIP
from freemask.masks import bookshelf
from freemask.masks.codebook import Codebook
from freemask.settings import Effect, Spellings, declared
from freemask.types import EditTask

UNTUNED = "freemask.tuning.recipe.NoTuning"
CONTENT = "content"  # stands before the digest of what lies at a place
FOUND_BY = ("weights", "revision", "local_files_only", "allow_pickle")  # how the files of a model are found
Content = Callable[[Mapping[str, Any], str], Any]  # what counts of a node's setting, instead of its value


def identity_over(digest: str, config: Mapping[str, Any], choices: Mapping[str, str | None]) -> Identity:
    """From a resolved run configuration, over the task list of that digest (`digest_of`). `choices`: the option chosen
    in each group, for advice."""
    parts = {
        "method": method_of(config, choices.get("model")),
        "model": counted(config["model"]),
        "data": counted(config["data"]) | {"task_list": digest},
        "metric": counted(config["metric"]),
        "seed": config["seed"],
        **tuning_of(config),
    }
    return Identity(json.loads(json.dumps(parts, default=str)))


def digest_of(tasks: Sequence[EditTask]) -> str:
    """Of a whole task list (a limit changes no result)."""
    content = cache(named)  # edits of one clip may share a folder
    return digest([_without_places(task, content).plain() for task in tasks])


def _without_places(task: EditTask, content: Callable[[str], str]) -> EditTask:
    """Files by their names and what is in them: folders may move."""
    assets = {key: content(path) for key, path in task.assets.items()}
    edits = tuple(replace(edit, region=content(edit.region)) for edit in task.edits)
    return replace(task, assets=assets, edits=edits)


def named(path: str) -> str:
    """A file or folder that a task names: what it is called, and its content where it is there."""
    found = _files(path) if path else path
    return Path(path).name if found == path else f"{Path(path).name}, {found}"


def files_of(task: EditTask) -> list[str]:
    """The files of a task and of its edits, in its order."""
    return [*map(named, task.assets.values()), *(named(edit.region) for edit in task.edits if edit.region)]


def method_of(config: Mapping[str, Any], model: str | None = None) -> dict[str, Any]:
    """What counts of the method, and of the masks and the fusion where it refers to them. `model` is the name of the
    model, for advice."""
    runs = config.get("paths", {}).get("runs")
    return counted(config["method"], partial(_codebook, config["model"], model, runs))


def tuning_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of a tuning, where there is one."""
    said = config.get("tuning")
    return {} if said is None or said["_target_"] == UNTUNED else {"tuning": counted(said)}


def counted(node: Any, codebook: Content = getitem) -> Any:
    """A configuration with what counts of each setting, and without settings that do not count."""
    if isinstance(node, list):
        return [counted(each, codebook) for each in node]
    if not isinstance(node, Mapping):
        return node
    said, found = _declared(str(node["_target_"])) if "_target_" in node else {}, {}
    for name, value in node.items():
        effect = said.get(name)
        if effect in (Effect.NONE, Effect.PLACE) or effect is Effect.SAID and value is None:
            continue
        if isinstance(effect, Spellings):
            found[name] = effect(value)
        elif effect in (None, Effect.SAID) or value is None:
            found[name] = counted(value, codebook)
        else:
            found[name] = codebook(node, name) if effect is Effect.CODEBOOK else _content(value)
    return found


@cache
def _declared(target: str) -> Mapping[str, Effect | Spellings]:
    maker = _object(target)
    return {} if maker is None else declared(maker)


def _object(name: str) -> Any:
    try:
        return get_object(name)
    except (HydraException, ImportError, AttributeError, ValueError):
        return None  # building it says what is wrong


def _content(named: Any) -> Any:
    return [_files(str(each)) for each in named] if isinstance(named, list) else _files(str(named))


def _files(named: str) -> str:
    """The content of a local file or model; anything else (a hub id, a kind of images) stands for itself."""
    if named in WORDS:
        return named
    path = {**SHIPPED, **SHIPPED_PARTS}.get(named) or Path(named).expanduser()
    if CLIP in named:  # one for each clip: of all that there are
        return digest({str(each): _files(str(each)) for each in _for_clips(path)})
    if path.is_file():
        return f"{CONTENT} {of_file(path)}"
    if not path.is_dir():
        return named
    return f"{CONTENT} {of_folder(path, COMPONENTS if (path / 'unet').is_dir() else ['.'])}"


def _for_clips(path: Path) -> list[Path]:
    """Every file or folder that a path with {clip} in it may stand for."""
    fixed = next(each for each in path.parents if CLIP not in str(each))
    return sorted(fixed.glob(str(path.relative_to(fixed)).replace(CLIP, "*")))


def _codebook(
    model: Mapping[str, Any], name: str | None, runs: str | None, node: Mapping[str, Any], key: str
) -> str:
    """Of `codebook: auto` or `codebook: FILE`, the content of what lies there."""
    if node[key] != bookshelf.AUTO:
        return f"{CONTENT} {Codebook.read(node[key]).digest}"
    found = bookshelf.find(
        backbone_identity(model), folders_of(node), base=base_identity(model), model=name, runs=runs
    )
    return f"{CONTENT} {found.book.digest}"


def folders_of(node: Mapping[str, Any]) -> Sequence[str]:
    """Where a node's codebook is looked for."""
    folders = node.get("folders") or ()
    return [folders] if isinstance(folders, str) else folders


def codebooks_in(
    node: Any, place: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """The nodes of a configuration that look up a codebook, each with the way to the setting that names it."""
    if isinstance(node, Mapping):
        said = _declared(str(node["_target_"])) if "_target_" in node else {}
        for name, value in node.items():
            if said.get(name) is Effect.CODEBOOK and value is not None:
                yield (*place, name), node
            else:
                yield from codebooks_in(value, (*place, name))
    elif isinstance(node, list):
        for index, each in enumerate(node):
            yield from codebooks_in(each, (*place, index))


def backbone_identity(model: Mapping[str, Any]) -> str:
    """What the loaded model will call itself; only a model without files has to be made for that."""
    if model.get("path") is None:
        return _identity_of_made(json.dumps(model, sort_keys=True, default=str))
    identify = beside_load(model, "identify")
    if identify is not None:
        return identify()
    known = {key: model[key] for key in FOUND_BY if key in model}
    return find(model["path"], **known).identity(COMPONENTS)


def base_identity(model: Mapping[str, Any]) -> str:
    """The same without what is lent to it: ControlNets beside it, gated layers within."""
    bare = {key: value for key, value in model.items() if not key.startswith("control") and key != "gated"}
    return backbone_identity(bare)


def beside_load(model: Mapping[str, Any], name: str) -> Callable[[], Any] | None:
    """What the class of a model that is loaded tells without that, from those of its settings that matter for it."""
    maker = str(model.get("_target_")).rpartition(".")[2]
    tell = getattr(class_of(model), name, None) if maker == "load" else None
    if tell is None:
        return None
    takes = inspect.signature(tell).parameters
    return lambda: tell(**{key: build(model[key], f"model.{key}") for key in takes if key in model})


def class_of(model: Mapping[str, Any]) -> Any:
    """The class that a model is of, where it is made by one of its methods; nothing is made for that."""
    return _object(str(model.get("_target_")).rpartition(".")[0])


@cache
def _identity_of_made(model: str) -> str:
    return build(json.loads(model), "model").identity
