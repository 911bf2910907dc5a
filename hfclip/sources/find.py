"""Finds the files of a model from its name."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from hfclip.config import ClipConfig
from hfclip.errors import (
    ArgumentError,
    ConfigError,
    NetworkError,
    RepositoryError,
)
from hfclip.hub import fetch as hub
from hfclip.hub import integrity
from hfclip.hub.cache import is_repository_name
from hfclip.hub.fetch import Access, Snapshot
from hfclip.hub.integrity import Digest
from hfclip.hub.missing import MissingRepositoryError, NotCachedError
from hfclip.layouts.files import CONFIG_FILE, OPEN_CLIP_CONFIG_FILE, Source
from hfclip.layouts.weight_files import is_index
from hfclip.releases import BUNDLED, RELEASES, Release, bundled_folder, repository_name
from hfclip.sources import naming
from hfclip.sources.configuration import (
    check_base,
    config_beside,
    config_in,
    known_files,
)
from hfclip.sources.folder import WHOLE, Folder, Part, find_layout, get_weights, local_folder
from hfclip.sources.partial_cache import check_layout_is_known, check_shards_are_cached

# The environment variable with the account whose copies of the releases are used.
NAMESPACE_VARIABLE = "HFCLIP_NAMESPACE"


# The files that `find` returns, for callers that pass them on.
Found: TypeAlias = Source


def find(
    name: str | Path,
    access: Access | None = None,
    *,
    revision: str | None = None,
    namespace: str | None = None,
    download_root: str | Path | None = None,
    base: str | Path | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
) -> Source:
    """Finds the files of a model, and downloads those that are not on this machine.

    Args:
        name: A release, a bundled model, a folder, a file, or a repository on the Hub:
            `org/name`, `hf-hub:org/name`, `org/name@revision`, or the address of its page.
        access: The settings for the Hub and its cache.
        revision: A branch, tag or commit, instead of the pinned commit.
        namespace: The account whose copies of the releases are used; by default HFCLIP_NAMESPACE.
        download_root: The folder of OpenAI's own files; by default ~/.cache/clip.
        base: The model from which a weight file was fine-tuned: a name, a folder or a repository.
            Its configuration replaces any configuration beside the file. If `name` is not a weight
            file, its own configuration must agree with the base.
        subfolder: The folder inside a folder or repository that holds the model, such as "a/b".
        variant: The part of the weights' file names that marks another dtype: "fp16" for
            model.fp16.safetensors. Without it, files of a variant are not used.

    Raises:
        ModelNotFoundError: The name is empty, unknown (the message suggests the nearest name), or
            a path that does not exist.
        ArgumentError: `revision`, `namespace`, `subfolder` or `variant` is invalid or does not
            apply to the name.
        ConfigError: The configuration is invalid, or is not that of a fine-tune of `base`.
        HubError: The files cannot be fetched, or differ from the published files.
    """
    access = access or Access()
    naming.check_is_name(name)
    name, weights = naming.spelled(name)
    if weights:
        naming.refuse_options(f"The address names the file {weights}", subfolder=subfolder)
    part = Part.of(subfolder, variant)
    if base is None:
        source = _find(name, access, revision, namespace, download_root, part)
        naming.check_weights(str(name), weights, source.weights.name)
        return source
    config = base_config(base, access)
    path = None if name in BUNDLED or name in RELEASES else naming.local_path(name)
    if path is not None and path.is_file():
        _refuse_for_path(name, revision, namespace, part)
        source = _file(path, base=config)
        return replace(source, config_origin=f"the base {base}", is_base=True)
    source = _find(name, access, revision, namespace, download_root, part)
    naming.check_weights(str(name), weights, source.weights.name)
    if source.config is not None:
        check_base(source.config, source.origin, config, str(base))
    return source


def _find(
    name: str | Path,
    access: Access,
    revision: str | None,
    namespace: str | None,
    download_root: str | Path | None,
    part: Part,
) -> Source:
    if name in BUNDLED:
        naming.refuse_options(
            f"{name} is bundled with hfclip",
            revision=revision,
            namespace=namespace,
            **part._asdict(),
        )
        folder = local_folder(bundled_folder(str(name)), part, "bundled with hfclip")
        return replace(find_layout(folder), mapped=True)
    if name in RELEASES:
        namespace = namespace or os.environ.get(NAMESPACE_VARIABLE)
        if namespace:
            copy = f"{namespace}/{repository_name(str(name))}"
            return _repository(copy, revision, access, part)
        naming.refuse_options(f"{name} is a release", **part._asdict())
        return _release(RELEASES[str(name)], revision, access, download_root)
    path = naming.local_path(name)
    if path is not None:
        _refuse_for_path(name, revision, namespace, part)
        if path.is_file():
            return _file(path)
        return find_layout(local_folder(path, part, f"the folder {path}"), part.variant)
    repo_id, named_revision = naming.parse_repository(str(name))
    naming.refuse_options(f"{name} already names an account", namespace=namespace)
    if revision and named_revision and revision != named_revision:
        raise ArgumentError(
            f"{name} names the revision {named_revision!r}, but revision={revision!r} is given. "
            "Give one revision."
        )
    try:
        return _repository(repo_id, revision or named_revision, access, part)
    except (MissingRepositoryError, NotCachedError) as error:
        hint = f" There is no file or folder {name} either.{naming.suggestion(str(name))}"
        kind = NetworkError if isinstance(error, NotCachedError) else RepositoryError
        raise kind(f"{error}{hint}") from None


def repository_of(
    name: str | Path, *, revision: str | None = None, namespace: str | None = None
) -> tuple[str, str | None] | None:
    """Returns the repository and revision that `find` uses for a name.

    Returns:
        The repository's id and the revision (None for the default branch), or None if the name is
        unknown, or that of a bundled model, a file or a folder.

    Raises:
        ModelNotFoundError: The name is an address, but not one of a model's repository.
    """
    name, _ = naming.spelled(name)
    if name in RELEASES:
        namespace = namespace or os.environ.get(NAMESPACE_VARIABLE)
        if namespace:
            return f"{namespace}/{repository_name(str(name))}", revision
        file = RELEASES[str(name)].hub
        return file.repo_id, revision or file.revision
    if name in BUNDLED or Path(name).expanduser().exists():
        return None
    match = naming.HUB_NAME.fullmatch(str(name))
    if match is None or not is_repository_name(match[1]):
        return None
    return match[1], revision or match[2]


def original_file(release: Release, download_root: str | Path | None = None) -> Path:
    """Returns the path at which OpenAI's `clip` stores the release's own file."""
    return Path(download_root or "~/.cache/clip").expanduser() / release.original.file


def release_digest(release: Release) -> Digest | None:
    """Returns the expected hash of the release's weights on the Hub, or None if it is unknown."""
    return Digest("sha256", release.hub.sha256) if release.hub.sha256 else None


def _release(
    release: Release, revision: str | None, access: Access, download_root: str | Path | None
) -> Source:
    """Returns the cached copy of the Hub's file, else OpenAI's own file, else downloads."""
    file = release.hub
    pinned = file.revision if revision is None else None
    in_cache = pinned and hub.cached(file.repo_id, file.file, pinned, access)
    if revision is None and not in_cache and not access.force_download:
        original = _original(release, download_root, access)
        if original is not None:
            return Source(original, release.config, f"OpenAI's own file {original}")
    digest = release_digest(release) if revision is None else None
    if pinned and in_cache and digest:
        snapshot = Snapshot(file.repo_id, pinned, {file.file: digest}, access)
    else:
        snapshot = hub.resolve(file.repo_id, revision or pinned, access)
    weights = hub.fetch(snapshot, file.file, digest)
    return Source(weights, release.config, _origin(snapshot), mapped=True)


def _original(release: Release, download_root: str | Path | None, access: Access) -> Path | None:
    """Returns OpenAI's own file in the folder of `clip` if it is there and undamaged."""
    path, published = original_file(release, download_root), release.original
    if not path.is_file() or path.stat().st_size != published.size:
        return None
    digest = Digest("sha256", published.sha256)
    return path if integrity.matches(path, digest, again=access.hash_again) else None


def _repository(repo_id: str, revision: str | None, access: Access, part: Part) -> Source:
    snapshot = hub.resolve(repo_id, revision, access)
    origin = _origin(snapshot)
    names = part.names_in(snapshot.digests)
    if snapshot.is_listed and not names and part.subfolder:
        folders = sorted({name.rpartition("/")[0] for name in snapshot.digests} - {""})
        raise RepositoryError(
            f"{origin} has no folder {part.subfolder!r}. "
            f"Its folders are {', '.join(folders[:5]) or 'none'}."
        )
    if not snapshot.is_listed:
        check_layout_is_known(snapshot, part)
    folder = Folder(
        names,
        lambda name: hub.fetch(snapshot, part.name(name)),
        f"{origin}{part}",
        partial(check_shards_are_cached, snapshot, part),
    )
    return replace(find_layout(folder, part.variant), mapped=True)


def _origin(snapshot: Snapshot) -> str:
    return f"{snapshot.repo_id} at {snapshot.commit[:12]}"


def _file(path: Path, base: ClipConfig | None = None) -> Source:
    """Returns the source of a weight file, or of an index and its shards.

    Args:
        path: The file.
        base: The configuration; by default the one beside the file, if there is one.
    """
    origin = f"the file {path}"
    siblings = Folder(set(), path.parent.joinpath, f"the folder {path.parent}")
    if is_index(path.name):
        names = {entry.name for entry in path.parent.iterdir() if entry.is_file()}
        siblings = replace(siblings, names=names)
    weights, shards = get_weights(siblings, path.name)
    found = None if base else config_beside(path)
    if found is None:
        return Source(weights, base, origin, shards=shards)
    file, config = found
    beside = f"the configuration beside it, {path.with_name(file)}"
    return Source(weights, config, origin, beside, shards=shards)


def _refuse_for_path(
    name: str | Path, revision: str | None, namespace: str | None, part: Part
) -> None:
    """Raises an error for options that do not apply to a local folder or file."""
    naming.refuse_options(f"{name} is a local path", revision=revision, namespace=namespace)
    if Path(name).expanduser().is_file():
        naming.refuse_options(f"{name} is a file", **part._asdict())


def base_config(base: str | Path, access: Access | None = None) -> ClipConfig:
    """Returns the configuration of a base model without fetching its weights.

    Args:
        base: A release or a bundled model, which need no network, a folder, a repository, or a
            weight file with a configuration beside it.
        access: The settings for the Hub and its cache.

    Raises:
        ConfigError: There is no configuration, or it is invalid.
        ModelNotFoundError: The name is unknown.
        HubError: The configuration cannot be fetched.
    """
    if base in RELEASES:
        return RELEASES[str(base)].config
    naming.check_is_name(base)
    base, _ = naming.spelled(base)
    bundled = bundled_folder(str(base)) if base in BUNDLED else None
    path = bundled or naming.local_path(base)
    if path is None:
        snapshot = hub.resolve(*naming.parse_repository(str(base)), access or Access())
        if not snapshot.is_listed:
            check_layout_is_known(snapshot, WHOLE)
        found = config_in(snapshot.digests.keys(), partial(hub.fetch, snapshot))
    elif path.is_dir():
        found = config_in(known_files(path), path.joinpath)
    else:
        found = config_beside(path)
    if found is None:
        raise ConfigError(
            f"The base {base} has no configuration: neither {CONFIG_FILE} nor "
            f"{OPEN_CLIP_CONFIG_FILE}. Name a model from `hfclip models`, a folder with a "
            "configuration, or a repository."
        )
    return found[1]
