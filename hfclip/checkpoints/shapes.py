"""Infers the configuration of a CLIP from the shapes of its weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hfclip.checkpoints.names import describe_foreign, find_foreign, list_names
from hfclip.config import ClipConfig
from hfclip.errors import ConfigError, WeightsMismatchError


class Array(Protocol):
    """The attributes that a tensor of torch and an array of NumPy have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each dimension."""

    @property
    def dtype(self) -> Any:
        """The type of the elements."""

    @property
    def ndim(self) -> int:
        """The number of dimensions."""

    def reshape(self, shape: Any, /) -> Any:
        """Returns the same elements in another shape."""


def infer_config(tensors: Mapping[str, Array], path: Path) -> ClipConfig:
    """Infers the configuration of a CLIP from the shapes of its weights in OpenAI's layout.

    Raises:
        WeightsMismatchError: A needed tensor is missing or has an impossible shape.
    """
    try:
        is_resnet = any(name.startswith(_RESNET) for name in tensors)
        vision = _infer_resnet(tensors) if is_resnet else _infer_vit(tensors)
        return ClipConfig(
            embed_dim=tensors["text_projection"].shape[1],
            **vision,
            context_length=tensors["positional_embedding"].shape[0],
            vocab_size=tensors["token_embedding.weight"].shape[0],
            transformer_width=tensors["ln_final.weight"].shape[0],
            transformer_heads=tensors["ln_final.weight"].shape[0] // 64,
            transformer_layers=_count(tensors, _TEXT_BLOCKS),
            transformer_mlp_width=_mlp_width(tensors, _TEXT_BLOCKS),
        )
    except KeyError as error:
        foreign = find_foreign(tensors)
        held = describe_foreign(foreign, []) if foreign else list_names(tensors)
        raise WeightsMismatchError(
            f"{path} has no config.json and its weights are not in OpenAI's layout: "
            f"{error.args[0]} is missing. The file holds {held}. Give the folder with its "
            "config.json."
        ) from error
    except (IndexError, ZeroDivisionError, ConfigError) as error:
        raise WeightsMismatchError(
            f"{path} has no config.json and its shapes are not those of an OpenAI CLIP: {error} "
            "Give the folder with its config.json."
        ) from error


_RESNET = ("visual.layer", "visual.attnpool.")
_TEXT_BLOCKS, _VIT_BLOCKS = "transformer.resblocks.", "visual.transformer.resblocks."


def adapted(config: ClipConfig, tensors: Mapping[str, Array]) -> ClipConfig:
    """Returns the configuration with sizes that fine-tuning may change taken from the tensors.

    These are the image resolution (from the number of positions), the context length, the
    vocabulary size, and the width of the MLPs, which pruning changes.
    """
    changes = {}
    positions = tensors.get(
        "visual.attnpool.positional_embedding"
        if config.is_resnet
        else "visual.positional_embedding"
    )
    if positions is not None and _rows(positions) not in (0, config.image_positions):
        changes["image_resolution"] = _grid(positions) * (config.vision_patch_size or 32)
    for name, key in _RESIZABLE.items():
        if key in tensors and _rows(tensors[key]):
            changes[name] = _rows(tensors[key])
    for name, blocks in _MLPS.items():
        width = _mlp_width(tensors, blocks)
        if width and not (blocks == _VIT_BLOCKS and config.is_resnet):
            changes[name] = width
    return ClipConfig(**{**config.to_dict(), **changes})


_RESIZABLE = {"context_length": "positional_embedding", "vocab_size": "token_embedding.weight"}
_MLPS = {"vision_mlp_width": _VIT_BLOCKS, "transformer_mlp_width": _TEXT_BLOCKS}


def _mlp_width(tensors: Mapping[str, Array], blocks: str) -> int | None:
    """Returns the width of the MLPs in a stack; None if it has none, or they differ."""
    widths = {
        _rows(tensor)
        for key, tensor in tensors.items()
        if key.startswith(blocks) and key.endswith(".mlp.c_fc.weight")
    }
    return widths.pop() if len(widths) == 1 else None


def _rows(tensor: Array) -> int:
    return tensor.shape[0] if tensor.ndim else 0


def _infer_vit(tensors: Mapping[str, Array]) -> dict[str, Any]:
    patches = tensors["visual.conv1.weight"].shape  # (W, 3, patch, patch)
    grid = _grid(tensors["visual.positional_embedding"])
    return {
        "image_resolution": patches[-1] * grid,
        "vision_layers": _count(tensors, _VIT_BLOCKS),
        "vision_mlp_width": _mlp_width(tensors, _VIT_BLOCKS),
        "vision_width": patches[0],
        "vision_patch_size": patches[-1],
    }


def _infer_resnet(tensors: Mapping[str, Array]) -> dict[str, Any]:
    grid = _grid(tensors["visual.attnpool.positional_embedding"])
    return {
        "image_resolution": grid * 32,
        "vision_layers": tuple(_count(tensors, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)),
        "vision_width": tensors["visual.layer1.0.conv1.weight"].shape[0],
        "vision_patch_size": None,
    }


def _grid(positions: Array) -> int:
    """Returns the patches per side, from one position per patch and one for the class token."""
    return math.isqrt(max(positions.shape[0] - 1, 0))


def _count(tensors: Mapping[str, Array], prefix: str) -> int:
    """Returns the number of layers in a stack: of different numbers after a prefix."""
    return len({key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)})
