"""Finds the CLIP models in the Hub's cache. Makes no request and imports no torch."""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hfclip.config import ClipConfig, read_json
from hfclip.errors import CheckpointError, ConfigError, HfclipError, NetworkError
from hfclip.hub import fetch as hub
from hfclip.hub import integrity
from hfclip.hub.cache import is_repository_name
from hfclip.hub.fetch import Access, Snapshot
from hfclip.hub.integrity import Digest, digest_named
from hfclip.layouts.detect import config_from_json, is_transformers_clip
from hfclip.layouts.files import CONFIG_FILE, OPEN_CLIP_CONFIG_FILE, PREPROCESSOR_FILES
from hfclip.layouts.labels import LABELS_FILE
from hfclip.layouts.open_clip import config_from_open_clip
from hfclip.layouts.weight_files import (
    Choice,
    choices,
    existing_choices,
    is_index,
    read_index,
    variants_in,
)
from hfclip.releases import RELEASES
from hfclip.sources.find import release_digest
from hfclip.sources.folder import WHOLE, Part, choose

logger = logging.getLogger(__name__)

State = Literal["verified", "cached", "partial", "damaged", "not cached"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAIN = "main"


@dataclass(frozen=True)
class CachedModel:
    """A commit of a repository in the Hub's cache, complete or not.

    Attributes:
        snapshot: The repository, the commit, and the hashes of its files.
        refs: The branches and tags that pointed to the commit at the last request to the Hub.
        files: The path of each cached file, by its name in the repository.
        needed: The names of the files that hfclip reads, the weight file or the index first.
        config: The model's configuration, or None if its file is damaged.
        release: The name of the release, if its configuration comes from hfclip and not from the
            repository; else None.
        part: The subfolder and the variant of the model.
    """

    snapshot: Snapshot
    refs: tuple[str, ...]
    files: Mapping[str, Path]
    needed: tuple[str, ...]
    config: ClipConfig | None
    release: str | None = None
    part: Part = WHOLE

    @property
    def repo_id(self) -> str:
        """The repository: `org/name`."""
        return self.snapshot.repo_id

    @property
    def commit(self) -> str:
        """The commit, 40 hexadecimal digits."""
        return self.snapshot.commit

    @property
    def name(self) -> str:
        """The name by which `hfclip.load` reads this commit from the cache."""
        if _MAIN in self.refs:
            return self.repo_id
        return f"{self.repo_id}@{self.refs[0] if self.refs else self.commit}"

    @property
    def origin(self) -> str:
        """The repository, the commit, the subfolder and the variant, in words."""
        return f"{self.repo_id} at {self.commit[:12]}{self.part}"

    @property
    def missing(self) -> list[str]:
        """The files that hfclip reads and that are not in the cache."""
        return [name for name in self.needed if name not in self.files]

    @property
    def weights(self) -> Path | None:
        """The weight file or the index, if it is cached."""
        return self.files.get(self.needed[0])

    @property
    def state(self) -> State:
        """Whether all files that hfclip reads are cached and verified. Hashes nothing."""
        if self.config is None:
            return "damaged"
        if self.missing:
            return "partial"
        is_verified = all(integrity.is_verified(self.files[name]) for name in self.needed)
        return "verified" if is_verified else "cached"

    @property
    def pinned(self) -> dict[str, Digest]:
        """The hashes that hfclip pins, by file name."""
        release = RELEASES[self.release] if self.release else None
        if release is None or release.hub.revision != self.commit:
            return {}
        digest = release_digest(release)
        return {release.hub.file: digest} if digest else {}


def find_cached(
    repo_id: str, revision: str | None, access: Access, part: Part | None = None
) -> CachedModel | None:
    """Finds a repository at a revision in the cache.

    Args:
        repo_id: The repository.
        revision: A branch, tag or commit; None for main.
        access: The settings for the cache.
        part: The subfolder and variant; by default the model of the repository's own folder, or
            another cached part if the weights of that one are not cached.

    Returns:
        The model, or None if the cache has no file of a CLIP model at that revision.
    """
    offline = Access(cache_dir=access.cache_dir, local_files_only=True)
    try:
        snapshot = hub.resolve(repo_id, revision, offline)
    except NetworkError:
        return None
    refs = _refs(_folder(repo_id, access), snapshot.commit)
    if part is not None:
        return _read(snapshot, refs, part)
    return next(iter(_read_parts(snapshot, refs)), None)


def scan(access: Access | None = None) -> Iterator[CachedModel]:
    """Finds every cached commit with a CLIP model, or with a damaged configuration.

    Yields the repositories in alphabetical order. Within a repository, the commit of main comes
    first, then those of other branches and tags, then the rest, newest first. Each subfolder and
    variant of a commit with cached weights is a model of its own. A folder that cannot be read is
    skipped.
    """
    access = access or Access()
    for folder in sorted(access.cache.glob("models--*--*")):
        repo_id = folder.name.removeprefix("models--").replace("--", "/", 1)
        if not is_repository_name(repo_id):
            logger.debug("%s is skipped: its name is not that of a repository", folder)
            continue
        found = [
            model for commit in _commits(folder) for model in _attempt(repo_id, commit, access)
        ]
        yield from sorted(found, key=_rank)


def _attempt(repo_id: str, commit: str, access: Access) -> list[CachedModel]:
    offline = Access(cache_dir=access.cache_dir, local_files_only=True)
    try:
        snapshot = hub.resolve(repo_id, commit, offline)
        return _read_parts(snapshot, _refs(_folder(repo_id, access), snapshot.commit))
    except (HfclipError, OSError, ValueError) as error:  # huggingface_hub rejects some names
        logger.debug("%s at %s is skipped: %s", repo_id, commit, error)
        return []


def _rank(model: CachedModel) -> int:
    """Returns the sort key of a commit: 0 for main, 1 for another branch or a tag, else 2."""
    return 0 if _MAIN in model.refs else 1 if model.refs else 2


def _read_parts(snapshot: Snapshot, refs: tuple[str, ...]) -> list[CachedModel]:
    """Returns the model of the repository's own folder, and the other parts with cached weights.

    The first is left out if its weights are not cached and those of another part are.
    """
    files = _cached_files(snapshot)
    parts = {Part(name.rpartition("/")[0]): None for name in files}
    for subfolder, _ in list(parts):
        inside = Part(subfolder).names_in(files)
        parts |= {Part(subfolder, variant): None for variant in variants_in(inside)}
    default = _read(snapshot, refs, WHOLE)
    others = [_read(snapshot, refs, part) for part in parts if part != WHOLE]
    models = [model for model in others if model and model.weights]
    if default and (default.weights or not models):
        models.insert(0, default)
    return models


def _read(snapshot: Snapshot, refs: tuple[str, ...], part: Part) -> CachedModel | None:
    files = _cached_files(snapshot)
    chosen = _chosen(snapshot, files, part)
    release = _release_of(snapshot.repo_id) if part == WHOLE else None
    if release and (chosen is None or _is_release_commit(release, snapshot, refs)):
        weights = RELEASES[release].hub.file  # hfclip has the configuration of a release
        if weights in files:
            return CachedModel(snapshot, refs, files, (weights,), RELEASES[release].config, release)
    if chosen is None:
        return None
    config_file, weights_file = map(part.name, chosen)
    try:
        values = read_json(files[config_file])
        preprocessor = _preprocessor(snapshot, values, part)
        config = _config(chosen.config, values, files.get(preprocessor or ""))
        shards = _shards(files.get(weights_file), part)
    except (ConfigError, CheckpointError):
        damaged = any(_is_damaged(snapshot, name, path) for name, path in files.items())
        needed: tuple[str, ...] = (weights_file,)
        return CachedModel(snapshot, refs, files, needed, None, part=part) if damaged else None
    labels = part.name(LABELS_FILE)
    optional = [preprocessor, labels if labels in snapshot.digests else None]
    needed = (weights_file, *shards, config_file, *filter(None, optional))
    return CachedModel(snapshot, refs, files, needed, config, part=part)


def _shards(weights: Path | None, part: Part) -> list[str]:
    """Returns the names of the shards if the weights are a cached index, else none."""
    if weights is None or not is_index(weights.name):
        return []
    return [part.name(shard) for shard in read_index(weights)]


def _cached_files(snapshot: Snapshot) -> dict[str, Path]:
    paths = {
        name: hub.cached(snapshot.repo_id, name, snapshot.commit, snapshot.access)
        for name in sorted(snapshot.digests)
    }
    return {name: path for name, path in paths.items() if path}


def _chosen(snapshot: Snapshot, files: Mapping[str, Path], part: Part) -> Choice | None:
    """Returns the choice that `sources.find` makes, or None if its configuration is not cached.

    Returns the first choice with a cached configuration if none is known to have both files.
    """
    names = part.names_in(snapshot.digests)
    cached = part.names_in(files)
    if existing_choices(names, part.variant):
        try:
            chosen = choose(names, lambda name: files[part.name(name)], part.variant)
        except (KeyError, ConfigError):  # config.json is not cached, or damaged
            chosen = existing_choices(names, part.variant)[0]
        return chosen if chosen and chosen.config in cached else None
    return next((choice for choice in choices(part.variant) if choice.config in cached), None)


def _config(config_file: str, values: dict[str, Any], preprocessor: Path | None) -> ClipConfig:
    if config_file == OPEN_CLIP_CONFIG_FILE:
        return config_from_open_clip(values)
    return config_from_json(values, read_json(preprocessor) if preprocessor else None)


def _preprocessor(snapshot: Snapshot, values: dict[str, Any], part: Part) -> str | None:
    """Returns the name of the preprocessor file that the configuration needs, or None.

    If the list of the repository's files is not known, `hub.may_have` says whether something proves
    that the repository has no preprocessor file.
    """
    if not is_transformers_clip(values):
        return None
    names = [part.name(name) for name in PREPROCESSOR_FILES]
    known = next((name for name in names if name in snapshot.digests), None)
    if known or any(snapshot.digests.values()):
        return known
    return names[0] if hub.may_have(snapshot, names[0]) else None


def _is_damaged(snapshot: Snapshot, name: str, path: Path) -> bool:
    """Returns whether the hash of a configuration or index is wrong; False for other files."""
    plain = name.rpartition("/")[2]
    is_small = plain in {CONFIG_FILE, OPEN_CLIP_CONFIG_FILE, *PREPROCESSOR_FILES}
    if not is_small and not is_index(plain):
        return False
    digest = snapshot.digests.get(name)
    if digest is None and path.is_symlink():
        digest = digest_named(path.readlink().name)
    return digest is not None and integrity.compute(path, digest.kind) != digest.value


def _release_of(repo_id: str) -> str | None:
    return next((name for name, entry in RELEASES.items() if entry.hub.repo_id == repo_id), None)


def _is_release_commit(name: str, snapshot: Snapshot, refs: tuple[str, ...]) -> bool:
    """Returns whether `hfclip.load` reads the release from this commit: the pinned one, or main."""
    pinned = RELEASES[name].hub.revision
    return _MAIN in refs if pinned is None else pinned == snapshot.commit


def _folder(repo_id: str, access: Access) -> Path:
    return access.cache / f"models--{repo_id.replace('/', '--')}"


def _commits(folder: Path) -> list[str]:
    """Returns the commits in a repository's cache folder, newest first."""
    try:
        paths = [path for path in (folder / "snapshots").iterdir() if _COMMIT.fullmatch(path.name)]
        return [path.name for path in sorted(paths, key=_modified, reverse=True)]
    except OSError:
        return []


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _refs(folder: Path, commit: str) -> tuple[str, ...]:
    """Returns the branches and tags that point to a commit, main first."""
    root = folder / "refs"
    names = []
    for path in sorted(root.rglob("*")):
        try:
            if path.is_file() and path.read_text().strip() == commit:
                names.append(path.relative_to(root).as_posix())
        except (OSError, UnicodeDecodeError):
            continue
    return tuple(sorted(names, key=lambda name: name != _MAIN))
