"""What models on this machine are, and whether they are whole, without building one."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from hfclip import hub, integrity, sources
from hfclip.config import ClipConfig
from hfclip.errors import IntegrityError, NetworkError
from hfclip.hub import Access
from hfclip.integrity import Digest
from hfclip.releases import BUNDLED, RELEASES, Release


def inspect(name: str | Path, *, base: str | Path | None = None) -> dict[str, Any]:
    """The facts of a model, in an order that reads well and in types that JSON has.

    The fact `assumed` is there only for a weight file without a configuration: it says what the
    other facts take for granted.

    Args:
        name: Whatever `hfclip.load` takes.
        base: What a weight file was fine-tuned from, as in `hfclip.load`.

    Raises:
        HfclipError: As `hfclip.load` does, save that only a `base` is fitted to the weights.
    """
    # The other functions do without torch.
    from hfclip.checkpoint import read_checkpoint  # noqa: PLC0415
    from hfclip.model import check_fit  # noqa: PLC0415

    source = sources.find(name, base=base)
    checkpoint = read_checkpoint(source)
    if base is not None:
        check_fit(checkpoint)
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
        **({"assumed": checkpoint.assumed} if checkpoint.assumed else {}),
    }


def list_models() -> list[dict[str, Any]]:
    """The models that have a name, with what the cache holds of each."""
    rows: list[tuple[str, ClipConfig | None, str, str]] = [
        (name, release.config, _state(release), release.hub.repo_id)
        for name, release in RELEASES.items()
    ]
    for name in BUNDLED:
        source = sources.find(name)
        rows.append((name, source.config, "bundled", source.origin))
    return [
        {
            "name": name,
            "state": state,
            "image_tower": config.describe_image_tower(),
            "pixels": config.image_resolution,
            "parameters": config.parameter_count,
            "origin": origin,
        }
        for name, config, state, origin in rows
        if config is not None
    ]


def verify(
    name: str | Path, *, repair: bool = False, namespace: str | None = None
) -> tuple[Path, Digest]:
    """Hashes a cached model's files again, whatever is remembered of them.

    Args:
        name: Whatever `hfclip.load` takes, if a hash of it is published.
        repair: Whether damaged files are fetched anew; without, no request is made.
        namespace: As in `hfclip.load`.

    Returns:
        The weight file and what it hashes to.

    Raises:
        IntegrityError: A file is damaged, or nothing tells what it should hash to.
        NetworkError: The model is not cached.
    """
    access = Access(local_files_only=True, hash_again=True)
    try:
        source = sources.find(name, access, namespace=namespace)
    except IntegrityError:
        if not repair:
            raise
        source = sources.find(name, Access(hash_again=True), namespace=namespace)
    record = integrity.recall(source.weights)
    if record is None:
        raise IntegrityError(
            f"{name} is no download but {source.origin}: nothing tells what {source.weights} "
            "should hash to. Compare it with its source."
        )
    return source.weights, record.digest


def _state(release: Release) -> str:
    """Whether the cache holds a release at its pinned commit, or as main was last seen."""
    file, access = release.hub, Access(local_files_only=True)
    try:
        snapshot = hub.resolve(file.repo_id, file.revision, access)
    except NetworkError:
        return "not cached"
    path = hub.cached(file.repo_id, file.file, snapshot.commit, access)
    if path is None:
        return "not cached"
    return "verified" if integrity.is_verified(path) else "cached"
