"""The recipes of `freemask train`: what each stage needs from the stages before it, and what it leaves behind."""

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.workshop.clip import Contrast, write_clip
from experiments.workshop.codec import Reconstruction, linear_autoencoder
from experiments.workshop.corpus import Corpus, build_corpus
from experiments.workshop.diffusion import ImageDiffusion, VideoDiffusion
from experiments.workshop.loop import Loop, fit
from experiments.workshop.pipelines import write_pipeline
from freemask.errors import UserError


def corpus_of(run: dict[str, Any]) -> Corpus:
    bar = tqdm(total=run["clips"], desc="rendering the corpus", unit="clip", disable=None)

    def tell(done: int, _total: int) -> None:
        bar.update(done - bar.n)

    with bar:
        return build_corpus(Path(run["folder"]) / "corpus", run["clips"], tell=tell)


def _fit(name: str, build, settings: dict, run: dict[str, Any]) -> Loop:
    return fit(build, settings, Path(run["folder"]) / name, run)


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


def load_codec(run: dict[str, Any]) -> Any:
    from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

    vae: Any = AutoencoderDC.from_pretrained(_finished(run, "codec"), torch_dtype=torch.float32)
    return vae.eval()


def codec(run: dict[str, Any], **settings: Any) -> None:
    """Ends twice: the encoder is final before the first step, so the next stages may start beside this one."""
    corpus = corpus_of(run)
    shape = {key: settings[key] for key in ("channels", "width", "blocks")}
    target = Path(run["weights"]) / "codec"
    vae = linear_autoencoder(corpus, **shape)
    if not target.exists():
        vae.save_pretrained(target)
    loop = _fit("codec", lambda: Reconstruction(vae, corpus, batch=settings["batch"]), settings, run)
    if loop.global_rank == 0:
        taught: Any = loop.average["vae"]
        taught.save_pretrained(target)


def t2i(run: dict[str, Any], **settings: Any) -> None:
    corpus, work = corpus_of(run), Path(run["folder"])
    vae = load_codec(run)

    def build() -> ImageDiffusion:
        return ImageDiffusion(vae, corpus, work, batch=settings["batch"], channels=settings["channels"])

    loop = _fit("t2i", build, settings, run)
    if loop.global_rank == 0:
        write_pipeline(Path(run["weights"]) / "t2i", "t2i", vae=load_codec(run), **dict(loop.average))


def load_image(run: dict[str, Any], corpus: Corpus, batch: int) -> ImageDiffusion:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel

    folder = _finished(run, "t2i")
    vae = load_codec(run)
    job = ImageDiffusion(vae, corpus, Path(run["folder"]), batch=batch, channels=vae.config.latent_channels)
    job.unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    job.text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    return job


def t2v(run: dict[str, Any], **settings: Any) -> None:
    corpus, work = corpus_of(run), Path(run["folder"])
    image = load_image(run, corpus, settings["batch"])

    def build() -> VideoDiffusion:
        return VideoDiffusion(image, corpus, work, batch=settings["batch"], spatial=settings["spatial"])

    loop = _fit("t2v", build, settings, run)
    if loop.global_rank == 0:
        folder = Path(run["weights"]) / "t2v"
        unet = loop.average["unet"]
        write_pipeline(folder, "t2v", unet=unet, vae=load_codec(run), text_encoder=image.text_encoder)


def clip(run: dict[str, Any], **settings: Any) -> None:
    corpus = corpus_of(run)

    def build() -> Contrast:
        return Contrast(corpus, Path(run["folder"]), batch=settings["batch"])

    loop = _fit("clip", build, settings, run)
    if loop.global_rank == 0:
        write_clip(Path(run["weights"]) / "clip", loop.average["clip"])
