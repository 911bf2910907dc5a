"""What a model on disk is, without building it."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from hfclip import sources
from hfclip.checkpoint import read_checkpoint


def inspect(name: str | Path) -> dict[str, Any]:
    """The facts of a model, in an order that reads well and in types that JSON has.

    Raises:
        HfclipError: As `hfclip.load` does, save that the weights are not fitted to the model.
    """
    source = sources.find(name)
    checkpoint = read_checkpoint(source)
    config, tensors = checkpoint.config, checkpoint.tensors
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    with checkpoint.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "model": str(name),
        "origin": source.origin,
        "file": str(checkpoint.path),
        "format": checkpoint.format,
        "bytes": checkpoint.path.stat().st_size,
        "sha256": digest,
        "image_tower": config.describe_image_tower(),
        "text_tower": config.describe_text_tower(),
        "pixels": config.image_resolution,
        "embedding": config.embed_dim,
        "activation": config.activation,
        "parameters": config.parameter_count,
        "tensors": dict(dtypes),
    }
