"""Describes models without building them: `inspect` and `list_models`."""

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hfclip.checkpoints.assembly import Assembled
from hfclip.checkpoints.headers import has_headers, read_headers
from hfclip.config import ClipConfig, read_json
from hfclip.hub import integrity
from hfclip.hub.fetch import Access
from hfclip.layouts.detect import config_from_json
from hfclip.layouts.files import CONFIG_FILE, Source
from hfclip.releases import BUNDLED, RELEASES, bundled_folder
from hfclip.sources import cached as cached_models
from hfclip.sources.cached import CachedModel, State
from hfclip.sources.find import NAMESPACE_VARIABLE, find, original_file, repository_of
from hfclip.sources.folder import WHOLE

# Facts that only some models have.
_OPTIONAL = ("assumed", "preprocess", "shards")


@dataclass(frozen=True)
class Inspection:
    """The facts of a model.

    Attributes:
        model: The name that `inspect` was called with.
        origin: The repository and commit, or the file or folder, in words.
        file: The weight file, or the index of the shards.
        format: The kind of the weight file, such as "safetensors file".
        bytes: The size of the weight file, or of all shards together.
        sha256: The hash of `file`. A file that was verified and has not changed since is not
            hashed again.
        image_tower: The image tower in words.
        text_tower: The text tower in words.
        pixels: The side of the square input image.
        embedding: The width of the embeddings.
        activation: The activation of the transformers' MLPs.
        parameters: The number of parameters.
        tensors: The number of tensors of each dtype.
        assumed: The assumptions about a weight file without a configuration, in words; None if
            the model has a configuration.
        preprocess: How an image is resized, in words; None if this is done as by OpenAI.
        shards: The sha256 of each shard, by file name; empty for a single weight file.
    """

    model: str
    origin: str
    file: Path
    format: str
    bytes: int
    sha256: str
    image_tower: str
    text_tower: str
    pixels: int
    embedding: int
    activation: str
    parameters: int
    tensors: Mapping[str, int]
    assumed: str | None = None
    preprocess: str | None = None
    shards: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the facts by name, in JSON types. Optional facts are left out if empty."""
        facts = _json_types(self)
        return {name: fact for name, fact in facts.items() if name not in _OPTIONAL or fact}


@dataclass(frozen=True)
class ListedModel:
    """A model that `hfclip.load` finds by name.

    Attributes:
        name: The name for `hfclip.load`.
        state: "verified" (all files that hfclip reads are cached, and unchanged since they were
            verified), "cached" (all are cached, but some were not verified or have changed since),
            "partial" (some files are missing), "not cached", or "bundled" (part of hfclip).
        pinned: "yes" (hfclip pins the commit and the sha256 of the weights), "hash only", or "no"
            (the weights are checked against the hash that the Hub declares).
        image_tower: The image tower in words.
        pixels: The side of the square input image.
        parameters: The number of parameters.
        origin: The repository or file that the model comes from, in words.
        repository: The repository on the Hub, or None for a bundled model.
        revision: The commit in the cache; the pinned commit of a release that is not cached; or
            None.
        namespace: The setting that replaces the pinned repository of a release: "namespace" for
            the argument, "HFCLIP_NAMESPACE" for the environment variable, or None.
        subfolder: The argument `subfolder` for `hfclip.load`, or None.
        variant: The argument `variant` for `hfclip.load`, or None.
    """

    name: str
    state: State | Literal["bundled"]
    pinned: str
    image_tower: str
    pixels: int
    parameters: int
    origin: str
    repository: str | None = None
    revision: str | None = None
    namespace: str | None = None
    subfolder: str | None = None
    variant: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes by name, in JSON types."""
        return _json_types(self)


def inspect(
    name: str | Path,
    *,
    revision: str | None = None,
    namespace: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    base: str | Path | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
) -> Inspection:
    """Reads the facts of a model from its files. Builds no model and runs no code from the files.

    Args:
        name: Any name that `hfclip.load` takes.
        revision: A branch, tag or commit; by default the pinned commit of a release, else main.
        namespace: The account whose copies of the nine releases are used; by default the
            environment variable HFCLIP_NAMESPACE, if set.
        token: A Hub token, True for the stored token, False for none.
        cache_dir: The folder of the Hub's cache; by default HF_HUB_CACHE, else `hub` in HF_HOME.
        local_files_only: If True, makes no request and reads only the cache.
        base: The model that a weight file was fine-tuned from, as in `hfclip.load`. If given, the
            names and shapes of the weights must match it.
        subfolder: The folder inside a folder or repository, as in `hfclip.load`.
        variant: The variant of the weights, such as "fp16", as in `hfclip.load`.

    Returns:
        The architecture, the dtypes, the hash and the origin.

    Raises:
        HfclipError: See `hfclip.load`. Without `base`, the names and shapes of the weights are not
            checked.

    Example:
        >>> hfclip.inspect("digits").parameters
        4099905
    """
    access = Access(token, cache_dir, local_files_only)
    source = find(
        name,
        access,
        revision=revision,
        namespace=namespace,
        base=base,
        subfolder=subfolder,
        variant=variant,
    )
    checkpoint = _read(source, is_checked=base is not None)
    config, tensors = checkpoint.config, checkpoint.tensors
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return Inspection(
        model=str(name),
        origin=source.origin,
        file=checkpoint.path,
        format=checkpoint.format,
        bytes=sum(path.stat().st_size for path in source.weight_files),
        sha256=_sha256(checkpoint.path),
        image_tower=config.describe_image_tower(),
        text_tower=config.describe_text_tower(),
        pixels=config.image_resolution,
        embedding=config.embed_dim,
        activation=config.activation,
        parameters=config.parameter_count,
        tensors=dict(dtypes),
        assumed=checkpoint.assumed,
        preprocess=config.describe_preprocess(),
        shards={shard.path.name: _sha256(shard.path) for shard in source.shards},
    )


def _read(source: Source, *, is_checked: bool) -> Assembled[Any]:
    """Reads the facts of the tensors: from headers, which needs no torch, where that is enough.

    Args:
        source: The files.
        is_checked: Whether the tensors are compared with those of the network.
    """
    if has_headers(source) and not is_checked:
        return read_headers(source)
    from hfclip.checkpoints.fit import check_fit  # noqa: PLC0415
    from hfclip.checkpoints.read import read_checkpoint  # noqa: PLC0415

    checkpoint = read_checkpoint(source)
    if is_checked:
        check_fit(checkpoint)
    return checkpoint


def _sha256(path: Path) -> str:
    """Returns the hash of a file: the recorded one if the file has not changed since."""
    if integrity.is_verified(path):
        record = integrity.recall(path)
        if record and record.digest.kind == "sha256":
            return record.digest.value
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_models(
    *, namespace: str | None = None, cache_dir: str | Path | None = None
) -> list[ListedModel]:
    """Lists the nine releases, the bundled model and the other CLIP models in the Hub's cache.

    Makes no request and imports no torch. A repository that is not a release is listed once: the
    commit of main, or another commit if main is not cached. Each of its subfolders and variants
    with cached weights is a row of its own. A cached repository is listed if its configuration
    describes a model that hfclip loads.

    Args:
        namespace: The account whose copies of the nine releases are used; by default the
            environment variable HFCLIP_NAMESPACE, if set.
        cache_dir: The folder of the Hub's cache; by default HF_HUB_CACHE, else `hub` in HF_HOME.
    """
    access = Access(cache_dir=cache_dir, local_files_only=True)
    rows = [_listed_release(name, namespace, access) for name in RELEASES]
    rows += [_listed_bundled(name) for name in BUNDLED]
    listed = {(row.repository, row.revision) for row in rows}
    commits: dict[str, str] = {}
    for model in cached_models.scan(access):
        is_new = (model.repo_id, model.commit) not in listed or any(model.part)
        is_first = commits.setdefault(model.repo_id, model.commit) == model.commit
        if is_new and is_first and model.config:
            row = _listed_cached(model.name, model, model.config, model.origin)
            subfolder, variant = model.part
            rows.append(dataclasses.replace(row, subfolder=subfolder or None, variant=variant))
    return rows


def _listed_release(name: str, namespace: str | None, access: Access) -> ListedModel:
    release = RELEASES[name]
    repo_id, revision = repository_of(name, namespace=namespace) or ("", None)
    source = _namespace_source(namespace)
    model = cached_models.find_cached(repo_id, revision, access, WHOLE)
    if model and model.config and (source or model.release):
        return _listed_cached(name, model, model.config, repo_id, source)
    original = original_file(release)
    if not source and _has_size(original, release.original.size):
        state: State = "verified" if integrity.is_verified(original) else "cached"
        return _row(name, state, release.config, f"OpenAI's own file {original}", repo_id, revision)
    return _row(name, "not cached", release.config, repo_id, repo_id, revision, source)


def _has_size(path: Path, size: int) -> bool:
    """Returns whether a file exists and has this size; `hfclip.load` then hashes and uses it."""
    return path.is_file() and path.stat().st_size == size


def _namespace_source(namespace: str | None) -> str | None:
    if namespace:
        return "namespace"
    return NAMESPACE_VARIABLE if os.environ.get(NAMESPACE_VARIABLE) else None


def _listed_cached(
    name: str, model: CachedModel, config: ClipConfig, origin: str, source: str | None = None
) -> ListedModel:
    return _row(name, model.state, config, origin, model.repo_id, model.commit, source)


def _listed_bundled(name: str) -> ListedModel:
    folder = bundled_folder(name)
    config = config_from_json(read_json(folder / CONFIG_FILE))
    return _row(name, "bundled", config, "bundled with hfclip")


def _row(
    name: str, state: State | Literal["bundled"], config: ClipConfig, origin: str, *rest: str | None
) -> ListedModel:
    tower, pixels = config.describe_image_tower(), config.image_resolution
    pinned = _pinned(name, namespace=rest[2] if len(rest) > 2 else None)
    return ListedModel(name, state, pinned, tower, pixels, config.parameter_count, origin, *rest)


def _pinned(name: str, namespace: str | None) -> str:
    """Returns "yes", "hash only" or "no": see `ListedModel.pinned`."""
    if name in BUNDLED:
        return "yes"
    return RELEASES[name].hub.pinned if name in RELEASES and namespace is None else "no"


def _json_types(facts: Inspection | ListedModel) -> dict[str, Any]:
    values = dataclasses.asdict(facts)
    return {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}
