"""Caches label features on disk, so that a model encodes the same labels only once.

An entry is a safetensors file under HF_HOME/hfclip/labels. Its name is a SHA-256 of all inputs of
the features: weights of the text tower, configuration, labels, templates, hardware and software.
It does not depend on paths or time stamps. Labels are not stored in readable form. The least
recently used entries are removed when the folder exceeds `LIMIT`.
"""

import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hfclip.model import CLIP
from hfclip.version import __version__

logger = logging.getLogger(__name__)

# Maximum size of all entries together, in bytes.
LIMIT = 256 * 2**20
# Increase it when tokenization, averaging or the contents of an entry change.
_FORMAT = 1
_IMAGE_TOWER = "visual."
# Seconds after which an unfinished file counts as left by a killed process.
_ABANDONED = 3600


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
    path = _folder() / f"{key}.safetensors"
    try:
        entry = load(path.read_bytes())
        features, digest = entry["features"].clone(), bytes(entry["sha256"].tolist())
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        logger.debug("%s cannot be used: %s", path, error)
        return None
    if _hash(features) != digest:
        logger.debug("%s is damaged", path)
        return None
    _touch(path)
    return features


def write_features(key: str, features: Tensor) -> None:
    """Writes an entry atomically and removes old entries beyond `LIMIT`.

    Raises no error if the entry cannot be written; the labels are then encoded again next time.
    """
    folder = _folder()
    path, part = folder / f"{key}.safetensors", folder / f"{key}.{uuid.uuid4().hex}.part"
    digest = torch.tensor(list(_hash(features)), dtype=torch.uint8)
    content = save({"features": features.cpu().contiguous(), "sha256": digest})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _trim(folder)
    except OSError as error:
        logger.debug("%s cannot be written: %s", path, error)
    finally:
        _remove(part)


def _folder() -> Path:
    return Path(constants.HF_HOME) / "hfclip" / "labels"


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


def _trim(folder: Path) -> None:
    """Removes the least recently used entries, and unfinished files of killed processes."""
    for part in folder.glob("*.part"):
        if time.time() - _used(part) > _ABANDONED:
            _remove(part)
    total = 0
    for path in sorted(folder.glob("*.safetensors"), key=_used, reverse=True):
        total += _size(path)
        if total > LIMIT:
            _remove(path)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has removed it
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError as error:  # a read-only home
        logger.debug("%s: its time cannot be updated: %s", path, error)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.debug("%s cannot be removed: %s", path, error)
