"""Caches label features on disk, so that a model encodes the same labels only once.

An entry is a safetensors file under HF_HOME/hfclip/labels. Its name is a SHA-256 of all inputs of
the features: weights of the text tower, configuration, labels, templates, hardware and software.
It does not depend on paths or time stamps. Labels are not stored in readable form. The least
recently used entries are removed when the folder exceeds the limit of `hfclip.zeroshot.entries`.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hfclip.model import CLIP
from hfclip.version import __version__
from hfclip.zeroshot.entries import note_use, read_entry, write_entry

logger = logging.getLogger(__name__)

# Increase it when tokenization, averaging or the contents of an entry change.
_FORMAT = 1
_IMAGE_TOWER = "visual."


def features_key(model: CLIP, labels: Sequence[str], templates: Sequence[str], encoder: str) -> str:
    """Returns the cache key of label features, 64 hexadecimal digits.

    Args:
        model: A CLIP as `hfclip.load` returns it. Its text tower is hashed, at 1.4 GB/s per core.
        labels: The labels, in order.
        templates: The templates, in order.
        encoder: The name of the encoder, for example "optimized".
    """
    facts = [
        *(_FORMAT, __version__, torch.__version__, *_hardware(model.logit_scale.device)),
        encoder,
        model.config.to_dict(),
        _hash_text_tower(model),
        list(labels),
        list(templates),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_features(key: str) -> Tensor | None:
    """Returns the label features (N, D) on the CPU, or None if the entry is missing or damaged."""
    content = read_entry(key)
    if content is None:
        return None
    try:
        entry = load(content)
        features, digest = entry["features"].clone(), bytes(entry["sha256"].tolist())
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        logger.debug("The entry %s cannot be used: %s", key, error)
        return None
    if _hash(features) != digest:
        logger.debug("The entry %s is damaged", key)
        return None
    note_use(key)
    return features


def write_features(key: str, features: Tensor) -> None:
    """Writes an entry atomically, see `hfclip.zeroshot.entries.write_entry`."""
    digest = torch.tensor(list(_hash(features)), dtype=torch.uint8)
    write_entry(key, save({"features": features.cpu().contiguous(), "sha256": digest}))


def _hardware(device: torch.device) -> Iterator[str | int]:
    """Yields the hardware properties that affect the last bits of features."""
    yield device.type
    if device.type == "cuda":
        yield torch.cuda.get_device_name(device)
    yield torch.backends.cpu.get_cpu_capability()
    yield torch.get_num_threads()


def _hash_text_tower(model: CLIP) -> list[tuple[str, str, str]]:
    """Returns the name, dtype and SHA-256 of each tensor that `encode_text` uses."""
    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(_IMAGE_TOWER)
    }
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # hashlib releases the GIL
        hashes = list(pool.map(_hash, tensors.values()))
    return [
        (name, str(tensor.dtype), digest.hex())
        for (name, tensor), digest in zip(tensors.items(), hashes, strict=True)
    ]


def _hash(tensor: Tensor) -> bytes:
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy().data).digest()
