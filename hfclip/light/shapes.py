"""The tensors of a CLIP: their names and shapes, in the order of its state dict."""

from collections.abc import Iterator
from typing import NamedTuple

from hfclip.config import ClipConfig

_EXPANSION = 4  # output channels of a ResNet's block for each channel inside it


class Form(NamedTuple):
    """The shape of a tensor, and the dtype of its numbers."""

    shape: tuple[int, ...]
    dtype: str = "float32"


_Forms = Iterator[tuple[str, Form]]


def expected_tensors(config: ClipConfig) -> dict[str, Form]:
    """Returns the form of each tensor of a model by its name."""
    width, embed = config.transformer_width, config.embed_dim
    tower = _resnet(config) if config.is_resnet else _vit(config)
    blocks = _blocks(width, config.transformer_mlp_units, config.transformer_layers)
    return {
        "positional_embedding": Form((config.context_length, width)),
        "text_projection": Form((width, embed)),
        "logit_scale": Form(()),
        **_under("visual", tower),
        **_under("transformer.resblocks", blocks),
        "token_embedding.weight": Form((config.vocab_size, width)),
        **_under("ln_final", _norm(width)),
    }


def _under(prefix: str, forms: _Forms) -> dict[str, Form]:
    return {f"{prefix}.{name}": form for name, form in forms}


def _norm(width: int) -> _Forms:
    yield from {"weight": Form((width,)), "bias": Form((width,))}.items()


def _linear(width: int, out: int) -> _Forms:
    yield from {"weight": Form((out, width)), "bias": Form((out,))}.items()


def _blocks(width: int, hidden: int, layers: int) -> _Forms:
    """Yields the tensors of residual attention blocks."""
    block = {
        "attn.in_proj_weight": Form((3 * width, width)),
        "attn.in_proj_bias": Form((3 * width,)),
        **_under("attn.out_proj", _linear(width, width)),
        **_under("ln_1", _norm(width)),
        **_under("mlp.c_fc", _linear(width, hidden)),
        **_under("mlp.c_proj", _linear(hidden, width)),
        **_under("ln_2", _norm(width)),
    }
    for layer in range(layers):
        yield from _under(str(layer), iter(block.items())).items()


def _vit(config: ClipConfig) -> _Forms:
    width, patch = config.vision_width, config.vision_patch_size or 0
    layers = config.vision_layers if isinstance(config.vision_layers, int) else 0
    yield "class_embedding", Form((width,))
    yield "positional_embedding", Form((config.image_positions, width))
    yield "proj", Form((width, config.embed_dim))
    yield "conv1.weight", Form((width, 3, patch, patch))
    yield from _under("ln_pre", _norm(width)).items()
    blocks = _blocks(width, config.vision_mlp_units, layers)
    yield from _under("transformer.resblocks", blocks).items()
    yield from _under("ln_post", _norm(width)).items()


def _resnet(config: ClipConfig) -> _Forms:
    width = config.vision_width
    stages = config.vision_layers if isinstance(config.vision_layers, tuple) else ()
    for number, (channels, out) in enumerate(
        [(3, width // 2), (width // 2,) * 2, (width // 2, width)]
    ):
        yield from _convolution(number + 1, channels, out, 3)
    channels = width
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            forms = _bottleneck(channels, width * 2**stage, is_first=block == 0)
            yield from _under(f"layer{stage + 1}.{block}", forms).items()
            channels = width * 2**stage * _EXPANSION
    yield "attnpool.positional_embedding", Form((config.image_positions, channels))
    for name in ("k_proj", "q_proj", "v_proj"):
        yield from _under(f"attnpool.{name}", _linear(channels, channels)).items()
    yield from _under("attnpool.c_proj", _linear(channels, config.embed_dim)).items()


def _bottleneck(channels: int, planes: int, *, is_first: bool) -> _Forms:
    out = planes * _EXPANSION
    yield from _convolution(1, channels, planes, 1)
    yield from _convolution(2, planes, planes, 3)
    yield from _convolution(3, planes, out, 1)
    if is_first:  # the block changes the number of channels
        yield "downsample.0.weight", Form((out, channels, 1, 1))
        yield from _under("downsample.1", _batch_norm(out)).items()


def _convolution(number: int, channels: int, out: int, side: int) -> _Forms:
    yield f"conv{number}.weight", Form((out, channels, side, side))
    yield from _under(f"bn{number}", _batch_norm(out)).items()


def _batch_norm(width: int) -> _Forms:
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield name, Form((width,))
    yield "num_batches_tracked", Form((), "int64")
