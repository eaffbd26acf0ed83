"""What an edit will need, reckoned from the network's configuration: a guide with its assumptions."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.config.build import build
from experiments.doctor.weights import of
from freemask.backbones.checkpoint import SHIPPED
from freemask.errors import UserError, nearest

GB = 1e9
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
LIBRARIES = 0.9  # GB of host memory that torch, diffusers and transformers take by being imported
LIVE = 24  # tensors of the widest level alive at the peak of the UNet: skips, concatenations, feed-forward
# Of a network of Stable Diffusion's size, counted on tensors without data: what a training step keeps for its way back,
# in tensors of the widest level; and the shares of its weights that learn.
KEPT, KEPT_CHECKPOINTED = 400, 57
LEARNING = {True: 0.087, False: 0.029}  # with layers along frames, and the queries alone
LEARNING_LOW_RANK = 0.005
BESIDE = 16  # bytes for each of them: itself, its gradient and AdamW's two means, in single precision
# How many operations in a second small networks of coordinates come to: measured on one core, a guess for a GPU.
FIT_SPEEDS = {"one core": 4e10, "a large GPU": 1e13}
LIVE_VAE = 6  # the same for the autoencoder, per frame in hand
PACKED = 0.6  # PNG and npz against raw bytes, on filmed clips
FRAMES = 8
SIDES = ("frames", "height", "width")


@dataclass(frozen=True)
class Shape:
    """What memory depends on. Parameters count in millions."""

    unet: float
    others: float
    width: int
    vae_width: int
    factor: int
    channels: int
    native: tuple[int, int]


# Used where the files are not here to be read. Zeroscope and ModelScope are one architecture, so are the Stable
# Diffusion models.
MODELSCOPE = Shape(1413, 424, 320, 128, 8, 4, (256, 256))
STABLE_DIFFUSION = Shape(860, 207, 320, 128, 8, 4, (512, 512))
LAVIE = Shape(909, 207, 320, 128, 8, 4, (320, 512))
# The modules of models that are reckoned here, with the shape of each.
UNETS = {"unet3d": MODELSCOPE, "i2vgen": MODELSCOPE, "inflated2d": STABLE_DIFFUSION, "lavie": LAVIE}

ASSUMPTIONS = (
    f"weights + stored inversion latents + the larger of UNet ({LIVE} live tensors of its widest level) and "
    f"autoencoder ({LIVE_VAE} per frame in hand); no attention matrix is kept; rough to a factor of 1.5"
)


def forecast(config: Mapping[str, Any]) -> dict[str, Any]:
    """For the chosen model, method and clip."""
    model, method = config["model"], config["method"]
    path, dtype = model.get("path"), str(model.get("dtype", "float32"))
    if dtype not in BYTES:
        raise UserError(
            f"there is no dtype '{dtype}'", came=f"model.dtype={dtype}", expected=nearest(dtype, BYTES)
        )
    for key in SIDES:
        if config[key] is not None and (not isinstance(config[key], int) or config[key] < 1):
            raise UserError(f"{key} must be a whole number above 0", came=f"{key}={config[key]}")
    if path is None:
        return {"state": "this model has no weights on disk; it needs about 1 GB, the libraries themselves"}
    known = next((shape for module, shape in UNETS.items() if module in str(model.get("_target_"))), None)
    if known is None:
        return {
            "state": "what transformers need is not reckoned yet; freemask list model says how large they are"
        }
    folder = of(model)
    if folder is None and path in SHIPPED:
        return {"state": "the embedded weights are missing: freemask train, or reinstall"}
    shape = _shape_of(folder) if folder and (folder / "unet").is_dir() else known
    clip = [config[key] or each for key, each in zip(SIDES, (FRAMES, *shape.native), strict=True)]
    # Two streams run at once under classifier-free guidance, three where the source runs beside them.
    streams, steps = 3 if method.get("features") in ("auto", "recompute") else 2, method.get("steps", 50)
    read = "of the published architecture" if shape is known else "read from its files"
    needs = _needs(shape, clip, BYTES[dtype], steps, streams, model.get("vae_batch", 8))
    needs |= _tuning_needs(config.get("tuning") or {}, shape, clip, BYTES[dtype], needs)
    needs |= _fit_needs(method.get("fit"), clip)
    about = {"model": f"{path}, {dtype}, sizes {read}", "steps": steps}
    return {**needs, "assumptions": ASSUMPTIONS, **about}


def _needs(
    shape: Shape, clip: list[int], size: int, steps: int, streams: int, vae_batch: int
) -> dict[str, Any]:
    """`size`: bytes of a number."""
    frames, height, width = clip
    cells = (height // shape.factor) * (width // shape.factor)
    weights = (shape.unet * size + shape.others * 4) * 1e6
    latents = (steps + 1) * frames * shape.channels * cells * 4
    unet = streams * frames * cells * shape.width * size * LIVE
    vae = min(vae_batch, frames) * height * width * shape.vae_width * 4 * LIVE_VAE
    peak = (weights + latents + max(unet, vae)) / GB
    return {
        "clip": f"{frames} frames of {width}x{height}",
        "weights_gb": weights / GB,
        "latents_gb": latents / GB,
        "unet_gb": unet / GB,
        "vae_gb": vae / GB,
        "peak_gb": peak,
        "host_gb_on_cpu": peak + LIBRARIES,
        "disk_mb": frames * height * width * 3 * (PACKED + 0.3) / 1e6,
    }


def _tuning_needs(
    tuning: Mapping[str, Any], shape: Shape, clip: list[int], size: int, needs: Mapping[str, Any]
) -> dict[str, Any]:
    """Where weights are tuned on the clip before."""
    if "steps" not in tuning or tuning.get("path") is not None:
        return {}
    frames, height, width = clip
    kept = (KEPT_CHECKPOINTED + LIVE) if tuning.get("checkpointing") else KEPT
    share = LEARNING_LOW_RANK if tuning.get("rank") else LEARNING[tuning.get("temporal") != "none"]
    tensor = frames * (height // shape.factor) * (width // shape.factor) * shape.width * size
    peak = needs["weights_gb"] + (share * shape.unet * 1e6 * BESIDE + kept * tensor) / GB
    whole = max(peak, needs["peak_gb"])
    return {"tuning_gb": peak, "peak_gb": whole, "host_gb_on_cpu": whole + LIBRARIES}


def _fit_needs(fit: Mapping[str, Any] | None, clip: list[int]) -> dict[str, Any]:
    """Where fields are fitted to the clip before: what there is to be reckoned, and how long that may take."""
    if not fit:
        return {}
    plain = OmegaConf.to_container(fit, resolve=True) if isinstance(fit, DictConfig) else fit
    work = 2 * build(plain, "method.fit").multiplications(*clip)
    core, gpu = (f"{work / speed / 60:.2g} minutes on {name}" for name, speed in FIT_SPEEDS.items())
    return {"fit_tflop": work / 1e12, "fit_time": f"{core}, {gpu} (roughly; kept for every prompt)"}


def _shape_of(folder: Path) -> Shape:
    """From a checkpoint's configuration and the headers of its weights."""
    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    widths = vae.get("block_out_channels") or vae["encoder_block_out_channels"]
    factor = 2 ** (len(widths) - 1)
    size = unet.get("sample_size") or 32
    high, wide = (size, size) if isinstance(size, int) else size
    others = sum(_millions(folder / part) for part in ("vae", "text_encoder"))
    width, channels = unet["block_out_channels"][0], unet.get("in_channels", 4)
    native = (high * factor, wide * factor)
    return Shape(_millions(folder / "unet"), others, width, widths[0], factor, channels, native)


def _millions(folder: Path) -> float:
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        total += sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total / 1e6
