"""The attention layers of a UNet2DConditionModel or UNet3DConditionModel, found by module path, and the hooks that
tell their grids.

`attn2` is text attention only below `attentions`: in temporal blocks both attentions look along frames. An inflated
image network has `attn_temporal` beside them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from freemask.attention.processor import SiteProcessor, Slot
from freemask.types import Entry, Site

IMAGES = "image_latents_temporal_encoder"  # of an image-to-video network: a lone attention, before all others
TEMPORAL = ("temp_attentions", "transformer_in", "attn_temporal", IMAGES)
ATTENTIONS = ("attn1", "attn2", "attn_temporal")


# Of a self-attention: whom its frames look at.
Look = Callable[[nn.Module], tuple[Entry, ...]]


def alone(layer: nn.Module) -> tuple[Entry, ...]:
    """Every frame looks at itself."""
    return ()


def attention_sites(unet: nn.Module, look: Look = alone) -> dict[str, Site]:
    """Every attention of the network, in the order of the forward pass."""
    return {
        name: _site(name, stride, look(unet.get_submodule(name)))
        for prefix, block, stride in _blocks(unet)
        for name in _attentions(prefix, block)
    }


def feature_sites(unet: nn.Module) -> dict[str, Site]:
    """Modules whose output is a map of features: convolution blocks, and their last convolution before the shortcut
    is added; convolutions along frames; down- and upsamplers. Block by block, in the order of the forward pass."""
    found: dict[str, Site] = {}
    for prefix, block, stride in _blocks(unet):
        for i, _ in enumerate(getattr(block, "resnets", ())):
            names = [f"{prefix}.resnets.{i}.conv2", f"{prefix}.resnets.{i}"]
            names += [f"{prefix}.temp_convs.{i}"] if hasattr(block, "temp_convs") else []
            found |= {name: Site(name, "features", stride) for name in names}
        for kind, size in (("downsamplers", 2 * stride), ("upsamplers", stride // 2)):
            for i, _ in enumerate(getattr(block, kind, None) or ()):
                name = f"{prefix}.{kind}.{i}"
                found[name] = Site(name, "features", size)
    return found


def install(
    unet: Any,
    sites: dict[str, Site],
    features: dict[str, Site],
    slot: Slot,
    others: Mapping[str, SiteProcessor] = {},
) -> None:
    """Once, at construction: a processor per site, and hooks that read layer sizes and serve feature taps. `others`
    are those of layers that are no sites."""
    made = {f"{name}.processor": SiteProcessor(site, slot) for name, site in sites.items()} | {**others}
    if missing := set(unet.attn_processors) ^ set(made):
        raise RuntimeError(f"attention layers without a known kind: {sorted(missing)}")
    unet.set_attn_processor(made)
    modules = dict(unet.named_modules())
    for owner in {name.split(".transformer_blocks")[0] for name in sites if not name.startswith(IMAGES)}:
        modules[owner].register_forward_pre_hook(_size_reader(slot), with_kwargs=True)
    for name, site in features.items():
        modules[name].register_forward_hook(_feature_server(site, slot))


def _blocks(unet: Any) -> Iterator[tuple[str, nn.Module, int]]:
    """Blocks with their path and stride, in the order of the forward pass."""
    stride = 1
    if hasattr(unet, IMAGES):
        yield IMAGES, unet.get_submodule(IMAGES), stride
    if hasattr(unet, "transformer_in"):
        yield "transformer_in", unet.transformer_in, stride
    for i, block in enumerate(unet.down_blocks):
        yield f"down_blocks.{i}", block, stride
        stride *= 2 if block.downsamplers else 1
    if unet.mid_block is not None:
        yield "mid_block", unet.mid_block, stride
    for i, block in enumerate(unet.up_blocks):
        yield f"up_blocks.{i}", block, stride
        stride //= 2 if block.upsamplers else 1


def _attentions(prefix: str, block: nn.Module) -> Iterator[str]:
    """Paths of a block's attentions: layer by layer, the spatial one before the temporal one."""
    if prefix == IMAGES:
        yield f"{prefix}.attn1"
        return
    if prefix == "transformer_in":
        owners = [prefix]
    else:
        layers = range(len(getattr(block, "attentions", ())))
        kinds = [kind for kind in ("attentions", "temp_attentions") if hasattr(block, kind)]
        owners = [f"{prefix}.{kind}.{i}" for i in layers for kind in kinds]
    for owner in owners:
        inner = block if owner == prefix else block.get_submodule(owner.removeprefix(f"{prefix}."))
        for j, layer in enumerate(inner.get_submodule("transformer_blocks").children()):
            present = [name for name in ATTENTIONS if getattr(layer, name, None) is not None]
            yield from (f"{owner}.transformer_blocks.{j}.{name}" for name in present)


def _site(name: str, stride: int, look: tuple[Entry, ...]) -> Site:
    if any(part in TEMPORAL for part in name.split(".")):
        return Site(name, "temporal", stride, batch="(h w)", tokens="f", nth=int(name.endswith(".attn2")))
    return Site(name, "cross", stride) if name.endswith(".attn2") else Site(name, "self", stride, look=look)


def _size_reader(slot: Slot) -> Any:
    """Before a transformer runs: note the height and width of the maps it is given (never guessed from tokens)."""

    def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        maps = args[0] if args else kwargs["hidden_states"]
        slot.call.height, slot.call.width = maps.shape[-2:]

    return read


def _feature_server(site: Site, slot: Slot) -> Any:
    def serve(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        # Blocks that are compiled are used in calls without such taps only.
        return output if torch.compiler.is_compiling() else slot.call.features(site, output)

    return serve
