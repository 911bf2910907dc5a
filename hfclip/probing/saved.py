"""The files of a probe: probe.safetensors with weight and bias, and probe.json with the rest."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfclip.atomic import check_free, synced, written_whole
from hfclip.embedding.manifest import Manifest
from hfclip.errors import DataError, LabelError
from hfclip.version import __version__
from hfclip.zeroshot.labels import check_labels

FACTS_FILE, WEIGHTS_FILE = "probe.json", "probe.safetensors"
_FORMAT = 1


class Saved(NamedTuple):
    """The content of a probe's files.

    Attributes:
        labels: The labels, K of them.
        weight: float32 (K, D).
        bias: float32 (K,).
        manifest: The model and the options that made the embeddings.
        facts: How the probe was trained.
    """

    labels: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    manifest: Manifest
    facts: Mapping[str, Any]


def write_probe(folder: Path, saved: Saved, *, force: bool = False) -> None:
    """Writes the files of a probe to a folder, whole or not at all.

    The sources of the collection are left out.

    Raises:
        ConfigError: The folder holds other files.
        OSError: The folder cannot be written.
    """
    from safetensors.numpy import save  # noqa: PLC0415

    check_free(folder, force=force)
    content = save(
        {
            "weight": np.ascontiguousarray(saved.weight, np.float32),
            "bias": np.ascontiguousarray(saved.bias, np.float32),
        }
    )
    model = replace(saved.manifest, sources=(), plan_digest="", inputs=0, created="")
    facts = {
        "format": _FORMAT,
        "version": __version__,
        "labels": list(saved.labels),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "model": asdict(model),
        "training": dict(saved.facts),
    }
    with written_whole(folder) as part:
        (part / WEIGHTS_FILE).write_bytes(content)
        text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        (part / FACTS_FILE).write_text(text, encoding="utf-8")
        for path in part.iterdir():
            synced(path)


def read_probe(folder: Path) -> Saved:
    """Reads the files of a probe. Nothing in them is run.

    Raises:
        DataError: The folder holds no probe, a damaged one, or one of a newer version.
    """
    facts = _facts(folder)
    try:
        content = (folder / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise DataError(f"{folder} lacks {WEIGHTS_FILE} ({error}).") from error
    if hashlib.sha256(content).hexdigest() != facts["weights_sha256"]:
        raise DataError(f"{folder / WEIGHTS_FILE} has changed since {FACTS_FILE} was written.")
    try:
        manifest = Manifest.from_json(json.dumps(facts["model"]))
        labels = check_labels(facts["labels"])
    except (DataError, LabelError, TypeError) as error:
        raise DataError(f"{folder / FACTS_FILE} is damaged: {error}") from error
    weight, bias = _tensors(content, folder)
    shape = (len(labels), manifest.dimension)
    if weight.shape != shape or bias.shape != shape[:1]:
        raise DataError(
            f"{folder / WEIGHTS_FILE} has a weight {weight.shape} and a bias {bias.shape}; "
            f"expected {shape} and {shape[:1]}."
        )
    return Saved(labels, weight, bias, manifest, facts["training"])


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} is not a folder that `hfclip probe` wrote: {FACTS_FILE} cannot be read "
            f"({error})."
        ) from error
    if not isinstance(facts, dict):
        raise DataError(f"{path} is damaged: it holds no object.")
    if facts.get("format") != _FORMAT:
        raise DataError(
            f"{path} has the format {facts.get('format')!r}; this version reads {_FORMAT}. Update "
            "hfclip."
        )
    missing = {"labels", "weights_sha256", "model", "training"} - facts.keys()
    if missing or not isinstance(facts.get("training"), dict):
        raise DataError(f"{path} is damaged: it lacks {', '.join(sorted(missing)) or 'training'}.")
    return facts


def _tensors(content: bytes, folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.numpy import load  # noqa: PLC0415

    try:
        tensors = load(content)
        weight, bias = tensors["weight"], tensors["bias"]
    except (SafetensorError, KeyError) as error:
        raise DataError(f"{folder / WEIGHTS_FILE} is damaged ({error}).") from error
    if weight.dtype != np.float32 or bias.dtype != np.float32:
        raise DataError(f"{folder / WEIGHTS_FILE} has {weight.dtype} numbers; expected float32.")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise DataError(f"{folder / WEIGHTS_FILE} has numbers that are not finite.")
    return weight, bias
