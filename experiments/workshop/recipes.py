"""The recipes of `freemask train`: what each stage needs from the stages before it, and what it leaves behind."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.workshop.boxes import BoxDiffusion
from experiments.workshop.clip import Contrast, write_clip
from experiments.workshop.codec import Reconstruction, linear_autoencoder
from experiments.workshop.control import IMAGES, ControlDiffusion
from experiments.workshop.corpus import Corpus, build_corpus
from experiments.workshop.diffusion import ImageDiffusion, PictureDiffusion, VideoDiffusion
from experiments.workshop.flow import FlowMatching
from experiments.workshop.job import TrainingJob
from experiments.workshop.loop import fit
from experiments.workshop.networks import transformer, write_pipeline
from freemask.errors import UserError, nearest


def codec(run: dict[str, Any], **settings: Any) -> None:
    """Ends twice: the encoder is final before the first step, so the next stages may start beside this one."""
    corpus = _corpus(run)
    shape = {key: settings[key] for key in ("channels", "width", "blocks")}
    target = Path(run["weights"]) / "codec"
    vae = linear_autoencoder(corpus, **shape)
    if not target.exists():
        vae.save_pretrained(target)
    build = partial(Reconstruction, vae, corpus, batch=settings["batch"])
    _train("codec", build, lambda folder, vae: vae.save_pretrained(folder), run, settings)


def t2i(run: dict[str, Any], **settings: Any) -> None:
    vae = _codec(run)
    build = partial(ImageDiffusion, *_latents(run, vae), batch=settings["batch"])

    def write(folder: Path, **networks: nn.Module) -> None:
        write_pipeline(folder, "t2i", vae=vae, **networks)

    _train("t2i", build, write, run, settings)


def t2v(run: dict[str, Any], **settings: Any) -> None:
    vae, flat, encoder = _codec(run), _image(run), _text_encoder(run)
    sizes = {key: settings[key] for key in ("batch", "spatial")}
    build = partial(VideoDiffusion, flat, encoder, *_latents(run, vae), **sizes)

    def write(folder: Path, unet: nn.Module) -> None:
        write_pipeline(folder, "t2v", unet=unet, vae=vae, text_encoder=encoder)

    _train("t2v", build, write, run, settings)


def control(run: dict[str, Any], *, kind: str, **settings: Any) -> None:
    if kind not in IMAGES:
        raise UserError("There are no such images to steer by.", came=kind, todo=nearest(kind, IMAGES))
    vae, flat, encoder = _codec(run), _image(run), _text_encoder(run)
    latents, _ = _latents(run, vae)
    sizes = {"kind": kind, "batch": settings["batch"]}
    build = partial(ControlDiffusion, flat, encoder, _corpus(run), latents, **sizes)

    def write(folder: Path, controlnet: Any) -> None:
        controlnet.half().save_pretrained(folder)

    _train(f"control_{kind}", build, write, run, settings)


def boxes(run: dict[str, Any], **settings: Any) -> None:
    from safetensors.torch import save_file

    vae, flat, encoder = _codec(run), _image(run), _text_encoder(run)
    latents, _ = _latents(run, vae)
    build = partial(BoxDiffusion, flat, encoder, _corpus(run), latents, batch=settings["batch"])

    def write(folder: Path, layers: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: value.half().contiguous() for key, value in layers.tensors().items()}
        save_file(tensors, folder / "gated.safetensors")

    _train("boxes", build, write, run, settings)


def i2v(run: dict[str, Any], **settings: Any) -> None:
    """Autoencoder and text encoder are those that the text-to-video stage left beside its network."""
    from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
    from transformers import CLIPTextModel

    left = _finished(run, "t2v")
    vae: Any = AutoencoderDC.from_pretrained(left / "vae", torch_dtype=torch.float32).eval()
    encoder: Any = CLIPTextModel.from_pretrained(left / "text_encoder", dtype=torch.float32)
    start = UNet3DConditionModel.from_pretrained(left / "unet", torch_dtype=torch.float32)
    sizes = {key: settings[key] for key in ("batch", "spatial")}
    build = partial(PictureDiffusion, start, encoder, *_latents(run, vae), **sizes)

    def write(folder: Path, unet: nn.Module) -> None:
        write_pipeline(folder, "i2v", unet=unet, vae=vae, text_encoder=encoder)

    _train("i2v", build, write, run, settings)


def dit_stills(run: dict[str, Any], **settings: Any) -> None:
    """On a CPU most is learned from single frames, which are five times as cheap as clips."""
    _flow("dit_stills", 1, run, settings)


def dit(run: dict[str, Any], **settings: Any) -> None:
    _flow("dit", None, run, settings)


def _flow(name: str, frames: int | None, run: dict[str, Any], settings: dict[str, Any]) -> None:
    """`frames` None: all that a clip has."""
    vae, encoder = _codec(run), _text_encoder(run)
    start = _finished(run, settings["start"]) if settings["start"] else None
    latents, captions = _latents(run, vae)

    def build() -> FlowMatching:
        made = transformer(latents.shape[2], settings["blocks"])
        if start is not None:
            made.load_state_dict(type(made).from_pretrained(start / "transformer").state_dict())
        sizes = {"batch": settings["batch"], "frames": frames or latents.shape[1]}
        return FlowMatching(made, encoder, latents, captions, **sizes)

    def write(folder: Path, transformer: nn.Module) -> None:
        write_pipeline(folder, "dit", transformer=transformer, vae=vae, text_encoder=encoder)

    _train(name, build, write, run, settings)


def clip(run: dict[str, Any], **settings: Any) -> None:
    build = partial(Contrast, _corpus(run), batch=settings["batch"])
    _train("clip", build, write_clip, run, settings)


def _train(
    name: str, build: Callable[[], TrainingJob], write: Callable[..., None], run: dict, settings: dict
) -> None:
    """`write` gets the folder and the averaged networks by their names."""
    loop = fit(build, settings, Path(run["folder"]) / name, run)
    if loop.global_rank == 0:
        write(Path(run["weights"]) / name, **dict(loop.average.items()))


def _corpus(run: dict[str, Any]) -> Corpus:
    return build_corpus(Path(run["folder"]) / "corpus", run["clips"])


def _finished(run: dict[str, Any], name: str) -> Path:
    """The weights an earlier stage left, which this stage starts from."""
    path = Path(run["weights"]) / name
    if not path.exists():
        raise UserError(
            f"The stage '{name}' comes first and has left no weights.",
            came=path,
            expected="the folder that it writes when it ends",
            todo=f"freemask train what={name} folder={run['folder']}",
        )
    return path


def _codec(run: dict[str, Any]) -> Any:
    from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

    vae: Any = AutoencoderDC.from_pretrained(_finished(run, "codec"), torch_dtype=torch.float32)
    return vae.eval()


def _latents(run: dict[str, Any], vae: Any) -> tuple[Tensor, tuple[str, ...]]:
    """The corpus as the codec has it, and its captions."""
    corpus = _corpus(run)
    return corpus.latents(vae, "cuda" if run["accelerator"] == "gpu" else "cpu"), corpus.captions


def _image(run: dict[str, Any]) -> Any:
    """The image network, as its stage left it."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(_finished(run, "t2i") / "unet", torch_dtype=torch.float32)


def _text_encoder(run: dict[str, Any]) -> Any:
    """As the image stage left it."""
    from transformers import CLIPTextModel

    folder = _finished(run, "t2i") / "text_encoder"
    return CLIPTextModel.from_pretrained(folder, dtype=torch.float32)
