"""Read a checkpoint in diffusers layout: find it, check its parts, build them. Errors say what to do next."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from freemask.backbones import identity
from freemask.backbones.turns import REST
from freemask.errors import UserError, beside

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
EMBEDDED = WEIGHTS_FOLDER / "t2v"
# The models that are part of the package, by the names that stand for their folders.
SHIPPED = {
    "embedded": EMBEDDED,
    "embedded_image": WEIGHTS_FOLDER / "t2i",
    "embedded_dit": WEIGHTS_FOLDER / "dit",
    "embedded_i2v": WEIGHTS_FOLDER / "i2v",
}
# Networks that go beside another.
SHIPPED_PARTS = {
    "embedded_edges": WEIGHTS_FOLDER / "control_edges",
    "embedded_depth": WEIGHTS_FOLDER / "control_depth",
}
# Gated layers that go into another.
SHIPPED_LAYERS = {"embedded_boxes": WEIGHTS_FOLDER / "boxes"}
# Of U-Nets; the last is one that some have.
COMPONENTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler", "image_encoder"]
WEIGHTS = ("*.safetensors",)
PICKLES = ("*.bin",)


@dataclass(frozen=True)
class Checkpoint:
    """A local folder with a model_index.json, and what that file says about its parts."""

    folder: Path
    classes: Mapping[str, str]
    allow_pickle: bool = False

    def part(self, name: str, classes: Sequence[str], dtype: torch.dtype, place: torch.device = REST) -> Any:
        """Build one component with its weights, on its device. `classes` are the ones this backbone can use."""
        kind = self.kind(name, classes)
        folder, home = self.folder / name, library(name)
        safe = any(folder.glob("*.safetensors"))
        if not safe and not any(folder.glob("*.bin")):
            raise UserError(
                f"The checkpoint's '{name}' has no weights.", came=folder, expected="a .safetensors file"
            )
        if not safe and not self.allow_pickle:
            raise UserError(
                f"The checkpoint's '{name}' has pickled weights only, which can run code when they are read.",
                came=folder,
                expected="a .safetensors file",
                todo="convert them, choose a revision that has safetensors, or pass allow_pickle=true if you trust it",
            )
        options: dict[str, Any] = {"use_safetensors": safe, "local_files_only": True}
        options["torch_dtype" if home.__name__ == "diffusers" else "dtype"] = dtype
        with no_bars(home):
            return read(folder, lambda: maker(home, kind).from_pretrained(folder, **options)).to(place)

    def tokenizer(self, name: str = "tokenizer", *, as_filed: bool = False) -> Any:
        """`as_filed`: as its tokenizer.json says, whatever its class would make of the words in it."""
        import transformers

        kind = self.kind(name, ())
        # transformers 4 has two classes of the same tokenizer; only the "Fast" one knows character offsets.
        choice: Any = getattr(transformers, f"{kind}Fast", None) or getattr(transformers, kind, None)
        choice = transformers.PreTrainedTokenizerFast if as_filed else choice
        folder = self.folder / name
        _check_package(folder)
        return read(folder, lambda: choice.from_pretrained(folder, local_files_only=True))

    def scheduler(self) -> dict[str, Any]:
        return read_json(self.folder / "scheduler" / "scheduler_config.json")

    def index(self) -> dict[str, Any]:
        """What model_index.json says beside the classes of the parts."""
        return read_json(self.folder / "model_index.json")

    def config(self, name: str, file: str = "config.json") -> dict[str, Any]:
        return read_json(self.folder / name / file)

    def has(self, name: str) -> bool:
        return (self.folder / name).is_dir()

    def identity(self, parts: Sequence[str]) -> str:
        """Of the content of these."""
        return identity.of_folder(self.folder, [*parts])

    def marked(self, name: str) -> str:
        """An identity, with what the reader of it should know of the weights."""
        return name

    def kind(self, name: str, classes: Sequence[str]) -> str:
        """The class that model_index.json names for a component."""
        if name not in self.classes or not self.has(name):
            raise UserError(
                f"The checkpoint lacks its '{name}'.",
                came=f"{self.folder} with {', '.join(sorted(self.classes)) or 'no components'}",
                expected="a folder for each component that model_index.json names",
                todo="download or save the whole checkpoint",
            )
        if classes and self.classes[name] not in classes:
            raise UserError(
                f"The checkpoint's '{name}' is of another kind than this backbone runs.",
                came=self.classes[name],
                expected=" or ".join(classes),
                todo="choose the model entry written for this kind of network",
            )
        return self.classes[name]


def find(
    path: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
) -> Checkpoint:
    """A name in SHIPPED, a local folder, or a hub id ('owner/name'), as a local folder whose index has been read."""
    folder = SHIPPED.get(str(path)) or Path(path).expanduser()
    if not folder.exists():
        if str(path) in SHIPPED:
            raise UserError(
                "The embedded weights are missing.", came=folder, todo="run: freemask train, or reinstall"
            )
        if not _is_hub_id(str(path)):
            raise _no_folder(folder, f"{', '.join(SHIPPED)}, a folder in diffusers layout")
        patterns = ["model_index.json", "*/*.json", "*/merges.txt", "*/*.model"]
        patterns += [f"*/{each}" for each in (*WEIGHTS, *(PICKLES if allow_pickle else ()))]
        folder = _download(str(path), revision, local_files_only, patterns)
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            "This folder is not a checkpoint in diffusers layout.",
            came=folder,
            expected="a model_index.json beside unet/, vae/, text_encoder/, tokenizer/ and scheduler/",
            todo="give the folder that holds model_index.json",
        )
    entries = read_json(index).items()
    pairs = {name: entry for name, entry in entries if isinstance(entry, list) and len(entry) == 2}
    classes = {name: entry[1] for name, entry in pairs.items() if isinstance(entry[1], str)}
    return Checkpoint(folder, classes, allow_pickle)


def find_part(
    path: str | Path, *, local_files_only: bool = False, allow_pickle: bool = False
) -> tuple[Checkpoint, str]:
    """A network alone, a name in SHIPPED_PARTS, its own folder or a hub id: as one part of a checkpoint, and what it is
    called there."""
    patterns = ["config.json", *WEIGHTS, *(PICKLES if allow_pickle else ())]
    folder = alone(path, patterns, local_files_only=local_files_only, shipped=SHIPPED_PARTS).resolve()
    kind = str(read_json(folder / "config.json").get("_class_name"))
    return Checkpoint(folder.parent, {folder.name: kind}, allow_pickle), folder.name


def alone(
    path: str | Path,
    patterns: Sequence[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    shipped: Mapping[str, Path] = MappingProxyType({}),
) -> Path:
    """The folder of one network: a name among `shipped`, a local folder, or a hub id, of which files after `patterns`
    are fetched."""
    folder = shipped.get(str(path)) or Path(path).expanduser()
    if folder.exists():
        return folder
    if not _is_hub_id(str(path)):
        raise _no_folder(folder, ", ".join([*shipped, "a folder with a config.json and weights"]))
    return _download(str(path), revision, local_files_only, list(patterns))


def _download(name: str, revision: str | None, local_files_only: bool, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {
        "revision": revision,
        "allow_patterns": patterns,
        "ignore_patterns": ["*.fp16.*", "*.non_ema.*", "safety_checker/*"],
    }
    try:
        return Path(snapshot_download(name, local_files_only=local_files_only, **options))
    except Exception as error:  # the hub's client raises many unrelated kinds
        raise UserError(
            f"'{name}' is no local folder, and it could not be had from the hub.",
            came=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            expected="a folder in diffusers layout, or a hub id that can be reached",
            todo=f"on a machine with a network run: hf download {name} --local-dir DIR, then give that folder",
        ) from error


def _check_package(folder: Path) -> None:
    """T5 is often published in the form of another package, without which the library speaks of a third one."""
    kept = [each.name for each in folder.glob("*.model")]
    if kept and not (folder / "tokenizer.json").is_file() and find_spec("sentencepiece") is None:
        raise UserError(
            "The checkpoint's tokenizer is kept in a form that another package reads.",
            came=f"{folder} with {', '.join(kept)}",
            expected="a tokenizer.json, or the package sentencepiece",
            todo="pip install sentencepiece",
        )


def read(folder: Path, build: Any) -> Any:
    try:
        return build()
    except (AttributeError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(
            "A component of the checkpoint could not be read.",
            came=f"{folder}: {type(error).__name__}: {error}",
            expected="config and weights that belong together",
            todo="download it again, or compare the config with the weights",
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError("A file of the checkpoint could not be read.", came=f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise UserError(
            "A file of the checkpoint could not be read.", came=f"{path}: no mapping", expected="{...}"
        )
    return found


@contextmanager
def no_bars(library: Any) -> Iterator[None]:
    """The libraries' own progress bars would break ours."""
    bars = library.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def library(name: str) -> Any:
    """Whose class a component is."""
    import diffusers
    import transformers

    return transformers if name.startswith(("text_encoder", "image_encoder")) else diffusers


def maker(home: Any, kind: str) -> Any:
    """The class of this name in its library."""
    if kind == "I2VGenXLUNet":
        from freemask.backbones.i2vgen_unet import I2VGenXLUNet

        return I2VGenXLUNet
    if kind == "LaVieUNet":
        from freemask.backbones.lavie_unet import LaVieUNet

        return LaVieUNet
    return getattr(home, kind)


def _is_hub_id(path: str) -> bool:
    parts = path.split("/")
    return (
        len(parts) == 2
        and all(part and part[0] not in "./~\\" for part in parts)
        and not Path(parts[0]).is_dir()
    )


def _no_folder(folder: Path, expected: str) -> UserError:
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    siblings = [each.name for each in parent.iterdir() if each.is_dir()] if parent.is_dir() else []
    return UserError(
        "There is no such checkpoint folder.",
        came=folder,
        expected=f"{expected}, or a hub id such as owner/name",
        todo=f"in {parent}: {beside(folder.name, siblings)}",
    )
