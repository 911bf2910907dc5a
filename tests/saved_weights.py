"""Writes a model's weights as other packages do: shards with an index, .bin files and variants."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Weights = Mapping[str, Tensor]


def save(weights: Weights, path: Path) -> Path:
    """Writes one weight file, of the kind that its name ends with."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    else:
        torch.save(dict(weights), path)
    return path


def save_shards(
    weights: Weights, folder: Path, name: str, *, count: int = 3, variant: str | None = None
) -> Path:
    """Writes shards and their index, by the names of transformers, and returns the index.

    Args:
        weights: The tensors, which are dealt out in turn.
        folder: The folder.
        name: The name of a single file, such as "model.safetensors".
        count: The number of shards.
        variant: A part of the names, such as "fp16".
    """
    stem, _, suffix = name.rpartition(".")
    stem, ending = (f"{stem}.{variant}", f"{variant}.json") if variant else (stem, "json")
    placed: dict[str, str] = {}
    for number in range(count):
        shard = f"{stem}-{number + 1:05}-of-{count:05}.{suffix}"
        part = {key: weights[key] for key in list(weights)[number::count]}
        save(part, folder / shard)
        placed |= dict.fromkeys(part, shard)
    size = sum(tensor.nbytes for tensor in weights.values())
    index = folder / f"{name}.index.{ending}"
    index.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": placed}))
    return index
