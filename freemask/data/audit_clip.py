"""Inspect one clip in DAVIS layout: its frames, its annotations, and whether the two belong together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from freemask.data.audit import Audit, few
from freemask.data.davis_layout import DavisLayout
from freemask.data.folder import list_images
from freemask.data.images import open_picture, read_ids, values_in
from freemask.errors import UserError

Size = tuple[int, int]  # width, height


def check_clip(
    audit: Audit, layout: DavisLayout, name: str, named: Mapping[int, str], *, needs_names: bool
) -> None:
    """`named` are the words of the task list for object numbers. `needs_names`: an edit asks for one of them."""
    try:
        frames, drawn = list_images(layout.pictures / name), list_images(layout.drawings / name)
    except (UserError, OSError) as error:
        audit.refused(name, error)
        return
    audit.frames += len(frames)
    _check_pairs(audit, name, frames, drawn)
    size = _check_frames(audit, name, frames)
    objects = _check_masks(audit, name, drawn, size)
    if objects is not None:
        _check_objects(audit, name, objects, named, needs_names=needs_names)


def _check_pairs(audit: Audit, name: str, frames: Sequence[Path], drawn: Sequence[Path]) -> None:
    pictures, masks = {path.stem for path in frames}, {path.stem for path in drawn}
    lacking, surplus = sorted(pictures - masks), sorted(masks - pictures)
    if lacking or surplus:
        said = [f"frames without an annotation: {few(lacking)}"] if lacking else []
        said += [f"annotations without a frame: {few(surplus)}"] if surplus else []
        audit.add(
            name,
            f"{len(frames)} frames and {len(drawn)} annotations; {'; '.join(said)}",
            "unpack the clip again, frames and annotations from the same archive",
        )
    numbers = [int(path.stem) for path in frames if path.stem.isdecimal()]
    if len(numbers) == len(frames) > 1:
        steps = Counter(b - a for a, b in zip(numbers, numbers[1:], strict=False))
        if len(steps) > 1:
            usual = steps.most_common(1)[0][0]
            gaps = [a for a, b in zip(numbers, numbers[1:], strict=False) if b - a != usual]
            audit.add(name, f"the frames' numbers jump after {few(map(str, gaps))}", grave=False)


def _check_frames(audit: Audit, name: str, frames: Sequence[Path]) -> Size | None:
    """The size that most frames have."""
    sizes: dict[Path, Size] = {}
    for path in frames:
        try:
            sizes[path] = open_picture(path).size
        except (UserError, OSError) as error:
            audit.refused(path, error)
    if not sizes:
        return None
    usual = Counter(sizes.values()).most_common(1)[0][0]
    odd = [f"{path.name} is {_by(size)}" for path, size in sizes.items() if size != usual]
    if odd:
        audit.add(name, f"frames differ in size: {few(odd)}, the others {_by(usual)}")
    return usual


def _check_masks(audit: Audit, name: str, drawn: Sequence[Path], size: Size | None) -> dict[int, int] | None:
    """In how many masks each object is, or None where not all of them could be read."""
    found: Counter[int] = Counter()
    faults: dict[tuple[str, str], list[str]] = {}
    empty: list[str] = []
    grey: list[str] = []
    read = 0
    for path in drawn:
        try:
            ids = read_ids(path)
        except (UserError, OSError) as error:
            faults.setdefault(_said(path, error), []).append(path.name)
            continue
        read += 1
        here = set(values_in(ids)) - {0}
        found.update(here)
        empty += [] if here else [path.name]
        grey += [path.name] if here - {1} and _mode(path) != "P" else []
        if size is not None and (ids.shape[1], ids.shape[0]) != size:
            said = f"annotation of {_by((ids.shape[1], ids.shape[0]))} where the frames are {_by(size)}"
            faults.setdefault((said, "take both at the same resolution (480p)"), []).append(path.name)
    for (wrong, todo), names in faults.items():
        audit.add(name, f"{wrong}: {few(names)}", todo)
    if grey:
        wrong = "annotations are grey numbers, not indexed with a palette; taken as object numbers"
        audit.add(name, f"{wrong}: {few(grey)}", grave=False)
    if empty and found:
        audit.add(name, f"no object in {len(empty)} of {len(drawn)} annotations: {few(empty)}", grave=False)
    return dict(found) if read == len(drawn) else None


def _check_objects(
    audit: Audit, name: str, found: Mapping[int, int], named: Mapping[int, str], *, needs_names: bool
) -> None:
    listed = ", ".join(map(str, sorted(found))) or "none"
    absent = sorted(set(named) - set(found))
    unnamed = sorted(set(found) - set(named))
    if not found:
        audit.add(name, "its annotations show no object at all", "unpack the clip again")
    elif absent:
        said = ", ".join(f"{number}: {named[number]}" for number in absent)
        audit.add(name, f"the list names objects that are not annotated ({said}); annotated: {listed}")
    elif len(found) > 1 and unnamed and needs_names:
        known = ", ".join(f"{number}: {word}" for number, word in sorted(named.items())) or "none of them"
        audit.add(
            name,
            f"more than one instance is annotated ({listed}), and the list names {known}",
            f"name them in the list (objects: {{{', '.join(f'{n}: word' for n in sorted(found))}}}), take the "
            "clip out of it, or let data.single_instance=true leave it out",
        )


def _said(path: Path, error: UserError | OSError) -> tuple[str, str]:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}", ""
    wrong = error.wrong.removeprefix(f"{path}: ")
    return (f"{wrong} ({error.came})" if error.came is not None else wrong), error.todo


def _mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
