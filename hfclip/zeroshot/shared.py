"""Caches label features of verified weights, for NumPy and torch together.

hfclip records the hash of each file of the Hub's cache when it verifies it. The key of an entry
names the weights by that hash, which costs nothing; `hfclip.zeroshot.cache` hashes the tensors,
which takes longer than NumPy needs for a few labels. The key names neither the backend nor the
hardware: features that another one has computed differ by about 1e-6. Only NumPy reads these
entries, so the results of torch stay the same to the bit. Imports no torch.
"""

import hashlib
import json
import logging
from collections.abc import Sequence

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hfclip.hub import integrity
from hfclip.layouts.files import Source
from hfclip.light.weights import Floats
from hfclip.version import __version__
from hfclip.zeroshot.entries import note_use, read_entry, write_entry

logger = logging.getLogger(__name__)

# Increase it when tokenization, averaging or the contents of an entry change.
_FORMAT = 1


def shared_key(source: Source, labels: Sequence[str], templates: Sequence[str]) -> str | None:
    """Returns the key of label features in the cache, or None without a recorded hash.

    Args:
        source: The files of the model.
        labels: The labels, in order.
        templates: The templates, in order.
    """
    if source.config is None or not all(map(integrity.is_verified, source.weight_files)):
        return None
    records = [integrity.recall(path) for path in source.weight_files]
    facts = [
        *(_FORMAT, __version__, "shared"),
        source.config.to_dict(),
        [record and record.digest for record in records],
        list(labels),
        list(templates),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_shared(key: str) -> Floats | None:
    """Returns label features (N, D), or None if the entry is missing or damaged."""
    content = read_entry(key)
    if content is None:
        return None
    try:
        entry = load(content)
        features, digest = entry["features"], entry["sha256"].tobytes()
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        logger.debug("The entry %s cannot be used: %s", key, error)
        return None
    if features.dtype != np.float32 or _hash(features) != digest:
        logger.debug("The entry %s is damaged", key)
        return None
    note_use(key)
    return features


def write_shared(key: str, features: Floats) -> None:
    """Writes float32 label features (N, D), see `hfclip.zeroshot.entries.write_entry`."""
    whole = np.ascontiguousarray(features, np.float32)
    digest = np.frombuffer(_hash(whole), np.uint8)
    write_entry(key, save({"features": whole, "sha256": digest}))


def _hash(features: Floats) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(features).data).digest()
