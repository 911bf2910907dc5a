"""Where a model's files lie: the one place where a name is given its meaning."""

import os
from collections.abc import Callable, Set
from dataclasses import replace
from functools import partial
from pathlib import Path

from hfclip.config import ClipConfig
from hfclip.errors import (
    ArgumentError,
    ConfigError,
    NetworkError,
    RepositoryError,
)
from hfclip.hub import fetch as hub
from hfclip.hub import integrity
from hfclip.hub.errors import MissingRepositoryError, NotCachedError
from hfclip.hub.fetch import Access, Snapshot
from hfclip.hub.integrity import Digest
from hfclip.layouts.files import (
    CONFIG_FILE,
    OPEN_CLIP_CONFIG_FILE,
    OPEN_CLIP_WEIGHTS_FILE,
    WEIGHTS_FILE,
    Source,
)
from hfclip.releases import BUNDLED, RELEASES, Release, bundled_folder, repository_name
from hfclip.sources import naming
from hfclip.sources.configuration import (
    check_base,
    config_beside,
    config_in,
    known_files,
    read_config,
)
from hfclip.sources.partial_cache import check_layout_is_known

# Names the account whose copies of the releases are used.
NAMESPACE_VARIABLE = "HFCLIP_NAMESPACE"


def find(
    name: str | Path,
    access: Access | None = None,
    *,
    revision: str | None = None,
    namespace: str | None = None,
    download_root: str | Path | None = None,
    base: str | Path | None = None,
) -> Source:
    """Finds the files of a model, fetching from the Hub what is not on this machine.

    Args:
        name: A release, a bundled model, a folder, a file, or a repository on the Hub:
            `org/name`, `hf-hub:org/name`, `org/name@revision`.
        access: How the Hub and its cache are to be used.
        revision: A branch, tag or commit, in place of the pinned one.
        namespace: Whose copies of the releases to use; by default HFCLIP_NAMESPACE.
        download_root: Where OpenAI's own files are looked for; by default ~/.cache/clip.
        base: What a weight file was fine-tuned from: a name, a folder or a repository. Its
            configuration is taken, whatever lies beside the file. The configuration of anything
            else than a weight file must agree with it.

    Raises:
        ModelNotFoundError: The name is empty, means nothing (the message suggests the nearest), or
            is a path that does not exist.
        ArgumentError: `revision` or `namespace` does not apply to that name.
        ConfigError: The configuration is refused, or is not that of a fine-tune of `base`.
        HubError: The files cannot be had, or are not what was published.
    """
    access = access or Access()
    naming.check_is_name(name)
    if base is None:
        return _find(name, access, revision, namespace, download_root)
    config = base_config(base, access)
    path = None if name in BUNDLED or name in RELEASES else naming.local_path(name)
    if path is not None and path.is_file():
        naming.refuse_options(f"{name} is a local path", revision=revision, namespace=namespace)
        return Source(path, config, f"the file {path}", f"the base {base}", is_base=True)
    source = _find(name, access, revision, namespace, download_root)
    if source.config is not None:
        check_base(source.config, source.origin, config, str(base))
    return source


def _find(
    name: str | Path,
    access: Access,
    revision: str | None,
    namespace: str | None,
    download_root: str | Path | None,
) -> Source:
    if name in BUNDLED:
        naming.refuse_options(
            f"{name} is bundled with hfclip", revision=revision, namespace=namespace
        )
        source = _folder(bundled_folder(str(name)), "bundled with hfclip")
        return replace(source, mapped=True)
    if name in RELEASES:
        namespace = namespace or os.environ.get(NAMESPACE_VARIABLE)
        if namespace:
            return _repository(f"{namespace}/{repository_name(str(name))}", revision, access)
        return _release(RELEASES[str(name)], revision, access, download_root)
    path = naming.local_path(name)
    if path is not None:
        naming.refuse_options(f"{name} is a local path", revision=revision, namespace=namespace)
        return _folder(path, f"the folder {path}") if path.is_dir() else _file(path)
    repo_id, named_revision = naming.parse_repository(str(name))
    naming.refuse_options(f"{name} names its own account", namespace=namespace)
    if revision and named_revision and revision != named_revision:
        raise ArgumentError(f"{name} names another revision than revision={revision!r}. Give one.")
    try:
        return _repository(repo_id, revision or named_revision, access)
    except (MissingRepositoryError, NotCachedError) as error:
        hint = f" Nor is there a file or folder {name}.{naming.suggestion(str(name))}"
        kind = NetworkError if isinstance(error, NotCachedError) else RepositoryError
        raise kind(f"{error}{hint}") from None


def repository_of(
    name: str | Path, *, revision: str | None = None, namespace: str | None = None
) -> tuple[str, str | None] | None:
    """Returns the repository and revision that `find` reads a name from.

    Returns:
        The repository's id and the revision (None for the default branch), or None if the name is
        a bundled model, a file, a folder, or nothing that `find` knows.
    """
    if name in RELEASES:
        namespace = namespace or os.environ.get(NAMESPACE_VARIABLE)
        if namespace:
            return f"{namespace}/{repository_name(str(name))}", revision
        file = RELEASES[str(name)].hub
        return file.repo_id, revision or file.revision
    if name in BUNDLED or Path(name).expanduser().exists():
        return None
    match = naming.HUB_NAME.fullmatch(str(name))
    return (match[1], revision or match[2]) if match else None


def original_file(release: Release, download_root: str | Path | None = None) -> Path:
    """Returns the path at which OpenAI's `clip` stores the release's own file."""
    return Path(download_root or "~/.cache/clip").expanduser() / release.original.file


def release_digest(release: Release) -> Digest | None:
    """What the release's weights on the Hub must hash to, as far as it is known here."""
    return Digest("sha256", release.hub.sha256) if release.hub.sha256 else None


def _release(
    release: Release, revision: str | None, access: Access, download_root: str | Path | None
) -> Source:
    """The Hub's copy if it is cached, else OpenAI's own file if it is here, else the Hub's."""
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
    """OpenAI's file where `clip` put it, if it is whole."""
    path, published = original_file(release, download_root), release.original
    if not path.is_file() or path.stat().st_size != published.size:
        return None
    digest = Digest("sha256", published.sha256)
    return path if integrity.matches(path, digest, again=access.hash_again) else None


def _repository(repo_id: str, revision: str | None, access: Access) -> Source:
    snapshot = hub.resolve(repo_id, revision, access)
    origin = _origin(snapshot)
    if not snapshot.is_listed:
        check_layout_is_known(snapshot)
    source = _read_layout(snapshot.digests.keys(), partial(hub.fetch, snapshot), origin)
    return replace(source, mapped=True)


def _folder(path: Path, origin: str) -> Source:
    names = {entry.name for entry in path.iterdir()}
    return _read_layout(names, path.joinpath, origin)


def _read_layout(names: Set[str], get: Callable[[str], Path], origin: str) -> Source:
    """Tells by its files which of three layouts a folder or repository has, and gets them."""
    # First: timm's repositories hold the image tower alone under the other two layouts' names.
    is_open_clip = {OPEN_CLIP_CONFIG_FILE, OPEN_CLIP_WEIGHTS_FILE} <= names
    if not is_open_clip and not {CONFIG_FILE, WEIGHTS_FILE} <= names:
        raise _unreadable(names, origin)
    config_file = OPEN_CLIP_CONFIG_FILE if is_open_clip else CONFIG_FILE
    try:
        config = read_config(config_file, names, get)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    weights = get(OPEN_CLIP_WEIGHTS_FILE if is_open_clip else WEIGHTS_FILE)
    return Source(weights, config, origin)


def _unreadable(names: Set[str], origin: str) -> RepositoryError:
    pickles = sorted(name for name in names if name.endswith(naming.PICKLE_SUFFIXES))
    if pickles:
        return RepositoryError(
            f"{origin} holds its weights as pickles alone ({', '.join(pickles[:3])}), which can "
            "run code and are not fetched. Ask its owner for safetensors; or download the file "
            "yourself and give its path, if it is a state dict."
        )
    return RepositoryError(
        f"{origin} holds no CLIP in a known layout: there is neither {CONFIG_FILE} with "
        f"{WEIGHTS_FILE}, nor {OPEN_CLIP_CONFIG_FILE} with {OPEN_CLIP_WEIGHTS_FILE}; "
        f"there is {', '.join(sorted(names)[:5]) or 'nothing'}."
    )


def _origin(snapshot: Snapshot) -> str:
    return f"{snapshot.repo_id} at {snapshot.commit[:12]}"


def _file(path: Path) -> Source:
    """A weight file that was named itself, with the configuration beside it, if there is one."""
    found = config_beside(path)
    if found is None:
        return Source(path, None, f"the file {path}")
    file, config = found
    beside = f"the configuration beside it, {path.with_name(file)}"
    return Source(path, config, f"the file {path}", beside)


def base_config(base: str | Path, access: Access | None = None) -> ClipConfig:
    """Returns the configuration of a model that weights were fine-tuned from; fetches no weights.

    Args:
        base: A release or a bundled model, which need no network, a folder, a repository, or a
            weight file with a configuration beside it.
        access: How the Hub and its cache are to be used.

    Raises:
        ConfigError: There is no configuration, or it is refused.
        ModelNotFoundError: The name means nothing.
        HubError: The configuration cannot be had.
    """
    if base in RELEASES:
        return RELEASES[str(base)].config
    naming.check_is_name(base)
    bundled = bundled_folder(str(base)) if base in BUNDLED else None
    path = bundled or naming.local_path(base)
    if path is None:
        snapshot = hub.resolve(*naming.parse_repository(str(base)), access or Access())
        if not snapshot.is_listed:
            check_layout_is_known(snapshot)
        found = config_in(snapshot.digests.keys(), partial(hub.fetch, snapshot))
    elif path.is_dir():
        found = config_in(known_files(path), path.joinpath)
    else:
        found = config_beside(path)
    if found is None:
        raise ConfigError(
            f"The base {base} has no configuration: neither {CONFIG_FILE} nor "
            f"{OPEN_CLIP_CONFIG_FILE}. Name one of the models of `hfclip models`, a folder with "
            "its configuration, or a repository."
        )
    return found[1]
