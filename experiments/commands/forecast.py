"""What an edit will need, reckoned from the network's configuration: a guide with its assumptions."""

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
LIBRARIES = 0.9  # GB of host memory that torch, diffusers and transformers take by being imported
LIVE = 24  # tensors of the widest level alive at the peak of the UNet: skips, concatenations, feed-forward
LIVE_VAE = 6  # the same for the autoencoder, per frame in hand
PACKED = 0.6  # PNG and npz against raw bytes, on filmed clips


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

ASSUMPTIONS = (
    f"weights + stored inversion latents + the larger of UNet ({LIVE} live tensors of its widest level) and "
    f"autoencoder ({LIVE_VAE} per frame in hand); no attention matrix is kept; rough to a factor of 1.5"
)


@dataclass(frozen=True)
class Forecast:
    clip: str
    weights_gb: float
    latents_gb: float
    unet_gb: float
    vae_gb: float
    peak_gb: float
    host_gb_on_cpu: float
    disk_mb: float


def forecast(
    shape: Shape, clip: tuple[int, int, int], *, dtype: str, steps: int, vae_batch: int, streams: int = 2
) -> Forecast:
    """`clip` is frames, height, width. Two streams run at once under classifier-free guidance, three where the
    source runs beside them."""
    frames, height, width = clip
    cells = (height // shape.factor) * (width // shape.factor)
    weights = (shape.unet * BYTES[dtype] + shape.others * 4) * 1e6
    latents = (steps + 1) * frames * shape.channels * cells * 4
    unet = streams * frames * cells * shape.width * BYTES[dtype] * LIVE
    vae = min(vae_batch, frames) * height * width * shape.vae_width * 4 * LIVE_VAE
    peak = (weights + latents + max(unet, vae)) / 1e9
    disk = frames * height * width * 3 * (PACKED + 0.3) / 1e6
    return Forecast(
        clip=f"{frames} frames of {width}x{height}",
        weights_gb=weights / 1e9,
        latents_gb=latents / 1e9,
        unet_gb=unet / 1e9,
        vae_gb=vae / 1e9,
        peak_gb=peak,
        host_gb_on_cpu=peak + LIBRARIES,
        disk_mb=disk,
    )


def shape_of(folder: Path) -> Shape:
    """From a checkpoint's configuration and the headers of its weights."""
    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    widths = vae.get("block_out_channels") or vae["encoder_block_out_channels"]
    factor = 2 ** (len(widths) - 1)
    size = unet.get("sample_size") or 32
    high, wide = (size, size) if isinstance(size, int) else size
    others = sum(_millions(folder / part) for part in ("vae", "text_encoder"))
    return Shape(
        _millions(folder / "unet"),
        others,
        unet["block_out_channels"][0],
        widths[0],
        factor,
        unet.get("in_channels", 4),
        (high * factor, wide * factor),
    )


def as_record(found: Forecast) -> dict[str, object]:
    return {**asdict(found), "assumptions": ASSUMPTIONS}


def _millions(folder: Path) -> float:
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        for name, entry in header.items():
            count = 1
            for side in entry["shape"] if name != "__metadata__" else (0,):
                count *= side
            total += count
    return total / 1e6
