"""Identifies the model of a collection: its name, files, hashes and configuration.

Imports no torch.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hfclip.embedding.manifest import Manifest
from hfclip.errors import DataError
from hfclip.hub.integrity import Digest, compute, matches
from hfclip.releases import BUNDLED, RELEASES
from hfclip.sources.find import find
from hfclip.sources.naming import local_path

if TYPE_CHECKING:
    from hfclip.config import ClipConfig
    from hfclip.layouts.files import Source


def find_model_of(manifest: Manifest) -> "Source":
    """Finds the files of the model that made the embeddings of a collection.

    Raises:
        DataError: The weights have changed since.
        HfclipError: As `hfclip.load`.
    """
    name = _name_of(manifest)
    source = find(
        name,
        revision=manifest.commit if manifest.repository else None,
        base=manifest.base,
        subfolder=manifest.subfolder,
        variant=manifest.variant,
    )
    if manifest.sha256 is not None and not _has_digest(source, manifest.sha256):
        raise DataError(
            f"The weights of {name} are not those that made the embeddings (sha256 "
            f"{manifest.sha256}). Restore them, or embed the collection again."
        )
    return source


def check_config(config: "ClipConfig", manifest: Manifest) -> None:
    """Checks that a model has the configuration with which it made the embeddings.

    Raises:
        DataError: The configuration has changed since.
    """
    if config_digest(config) != manifest.config_digest:
        raise DataError(
            f"The configuration of {_name_of(manifest)} has changed since it made the embeddings. "
            "Restore it, or embed the collection again."
        )


def is_model(name: str, manifest: Manifest) -> bool:
    """Returns whether a name or a path stands for the model of a collection.

    Names on the Hub are compared as names. A file or folder may also have the same weights.

    Raises:
        HfclipError: A file or folder of this name is no model.
    """
    if absolute_name(name) in (manifest.name, manifest.repository):
        return True
    if name in BUNDLED or name in RELEASES or local_path(name) is None:
        return False
    return manifest.sha256 is not None and _has_digest(find(name), manifest.sha256)


def absolute_name(name: str) -> str:
    """Returns the name of a model so that it is found from another folder, too."""
    path = None if name in BUNDLED or name in RELEASES else local_path(name)
    return name if path is None else str(path.absolute())


def place_of(weights: Path) -> tuple[str | None, str | None]:
    """Returns the repository and commit of a file in the Hub's cache, or None twice.

    The cache names a file .../models--ORG--NAME/snapshots/COMMIT/FILE.
    """
    parts = weights.parts
    for place, part in enumerate(parts[:-2]):
        if part.startswith("models--") and parts[place + 1] == "snapshots":
            return part.removeprefix("models--").replace("--", "/", 1), parts[place + 2]
    return None, None


def weights_digest(source: "Source") -> str:
    """Returns the sha256 of the weights; of the shards' hashes where there are several."""
    digests = [compute(path, "sha256") for path in source.weight_files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def config_digest(config: "ClipConfig") -> str:
    """Returns the sha256 of a model's configuration."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()


def _name_of(manifest: Manifest) -> str:
    return manifest.repository or manifest.name


def _has_digest(source: "Source", sha256: str) -> bool:
    """Returns whether weights have a sha256. A file that was verified is not read again."""
    if len(source.weight_files) == 1:
        return matches(source.weight_files[0], Digest("sha256", sha256))
    return weights_digest(source) == sha256
