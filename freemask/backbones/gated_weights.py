"""Gated layers of GLIGEN beside an image network that came without: build them, or read them from a file of their own.
They are called as in a network of diffusers that has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from freemask.backbones import identity
from freemask.backbones.checkpoint import SHIPPED, SHIPPED_LAYERS
from freemask.errors import UserError

READER, LAYER = "position_net", "fuser"  # of boxes and phrases, and the gated layer of a block
KIND = "model.gated"
WITHOUT = f"{KIND}=null does without, or leaves a network with those of its own"


def build(unet: Any) -> dict[str, nn.Module]:
    """Fresh gated layers that fit the network, by the names they have in it. They add nothing to what it does as long
    as nobody has taught them, and then as much as they learn: unlike GLIGEN's, their gates are open from the start."""
    from diffusers.models.attention import BasicTransformerBlock, GatedSelfAttentionDense
    from diffusers.models.embeddings import GLIGENTextBoundingboxProjection

    width = unet.config.cross_attention_dim
    made: dict[str, nn.Module] = {
        READER: GLIGENTextBoundingboxProjection(positive_len=width, out_dim=width, feature_type="text-only")
    }
    for name, block in unet.named_modules():
        if isinstance(block, BasicTransformerBlock):
            heads = block.attn1.heads
            size = block.attn1.inner_dim // heads
            layer: Any = GatedSelfAttentionDense(block.attn1.query_dim, width, heads, size)
            for last in (layer.attn.to_out[0], layer.ff.net[-1]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            for gate in (layer.alpha_attn, layer.alpha_dense):
                nn.init.ones_(gate)
            made[f"{name}.{LAYER}"] = layer
    return made


def put(unet: Any, layers: Mapping[str, nn.Module]) -> None:
    for name, layer in layers.items():
        owner, _, own = name.rpartition(".")
        unet.get_submodule(owner).add_module(own, layer)


def is_gated(name: str) -> bool:
    """Whether a weight of a network is one of its gated layers."""
    return name.startswith(f"{READER}.") or f".{LAYER}." in name


def find(path: str | Path) -> Path:
    """The file: of a name that ships, itself, or the one in a folder or in its `unet`."""
    place = SHIPPED_LAYERS.get(str(path)) or Path(path).expanduser()
    if place.is_file() and place.suffix == ".safetensors":
        return place
    found = [file for folder in (place / "unet", place) for file in sorted(folder.glob("*.safetensors"))]
    if not found:
        raise UserError(
            "There are no gated layers here.",
            came=place,
            expected=f"{', '.join(SHIPPED_LAYERS)}, a .safetensors file, or a folder with one in it or in its unet/",
            todo=WITHOUT,
        )
    return found[0]


def identity_of(path: str | Path) -> str:
    return identity.of_file(find(path))


def refuse_foreign(path: str | Path, layers: str | Path | None) -> None:
    """Layers that ship with the project beside a model that is fetched from a hub."""
    if str(layers) in SHIPPED_LAYERS and str(path) not in SHIPPED and not Path(path).expanduser().exists():
        raise UserError(
            "These gated layers were trained for model=embedded_image; this model needs its own.",
            came=f"{KIND}={layers} for {path}",
            expected="a file of gated layers for this model",
            todo=f"a checkpoint of GLIGEN has them already: {KIND}=null model.path=FOLDER; without any, {KIND}=null",
        )


def read(path: str | Path) -> dict[str, Tensor]:
    """Of a whole network that has them, the gated layers alone."""
    from safetensors.torch import load_file

    file = find(path)
    try:
        found = load_file(file)
    except Exception as error:  # the reader raises many unrelated kinds
        raise UserError(
            "The gated layers could not be read.",
            came=f"{file}: {error}",
            expected="a file of safetensors, whole",
            todo=WITHOUT,
        ) from error
    kept = {key: value for key, value in found.items() if is_gated(key)}
    if not kept:
        raise UserError(
            "There are no gated layers among these weights.",
            came=f"{len(found)} tensors in {file}, such as {next(iter(found), 'none')}",
            expected=f"names with {READER} and {LAYER}, as in a network of GLIGEN",
            todo=WITHOUT,
        )
    return kept


def mount(unet: Any, weights: Mapping[str, Tensor]) -> None:
    """Put the gated layers into the network: all or none of them."""
    if getattr(unet, READER, None) is not None:
        raise UserError(
            "This network has gated layers of its own.",
            came=f"{KIND} beside them",
            expected=f"{KIND}=null",
            todo=f"add {KIND}=null",
        )
    layers, like = build(unet), next(unet.parameters())
    wanted = {
        f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()
    }
    for key in sorted({*wanted, *weights}):
        came = tuple(weights[key].shape) if key in weights else "no such tensor"
        expected = tuple(wanted[key].shape) if key in wanted else "no such layer"
        if came != expected:
            raise UserError(
                f"These gated layers do not fit the network: '{key}'.",
                came=f"{came} in the file",
                expected=f"{expected} in the network",
                todo=f"take those that were trained for this model; {WITHOUT}",
            )
    for name, layer in layers.items():
        layer.load_state_dict({key: weights[f"{name}.{key}"] for key in layer.state_dict()})
        layer.to(like.device, like.dtype).eval().requires_grad_(False)
    put(unet, layers)
