"""What produced a row: commit and whether files differed from it, versions, device."""

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch", "lpips", "numpy", "av")


def version() -> str:
    try:
        return metadata.version("freemask")
    except metadata.PackageNotFoundError:
        return "unknown"


@cache
def commit() -> tuple[str, bool]:
    """The commit of the checkout this file stands in, and whether the checkout differs from it.

    Outside a checkout (a wheel) the version stands for the commit."""
    here = Path(__file__).resolve().parent.parent.parent
    if not (here / ".git").exists():
        return f"v{version()}", False
    head = _git(here, "rev-parse", "HEAD")
    return head or "none", bool(_git(here, "status", "--porcelain", "--untracked-files=no"))


def _git(folder: Path, *words: str) -> str:
    try:
        said = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "freemask": version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(torch.device(device))})"
