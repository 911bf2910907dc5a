"""Fetches files from the Hub through the cache of its client, and verifies every file.

A revision is resolved to a commit once, and every file is fetched from that commit, so a push in
between cannot mix two commits. The client itself checks only sizes. This module compares each file
with a hash: the pinned hash, else the Hub's, else the hash in the file's name in the cache.
"""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from huggingface_hub import constants

from hfclip.errors import CacheError, IntegrityError, NetworkError
from hfclip.hub import integrity, listings
from hfclip.hub.cache import cached_file, repository_folder
from hfclip.hub.integrity import Digest, digest_named
from hfclip.hub.missing import NotCachedError

logger = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Access:
    """The settings for the Hub and its cache, with the names of the Hub's client.

    Attributes:
        token: A token, True for the stored token, False for none; by default the stored token if
            there is one.
        cache_dir: The folder of the cache; by default HF_HUB_CACHE, else a folder in HF_HOME.
        local_files_only: Whether to make no request.
        force_download: Whether to fetch cached files again.
        hash_again: Whether to hash files again that were verified before.
    """

    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False
    hash_again: bool = False

    @property
    def offline(self) -> bool:
        """Whether `local_files_only` or HF_HUB_OFFLINE forbids requests."""
        return self.local_files_only or constants.is_offline_mode()

    @property
    def cache(self) -> Path:
        """The folder of the Hub's cache."""
        return Path(self.cache_dir or constants.HF_HUB_CACHE).expanduser()


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit.

    Attributes:
        repo_id: The repository's id.
        commit: The full commit.
        digests: The hashes of the files, by file name. Without a listing from the Hub, these are
            the cached files, with None as their hashes.
        access: The settings for the Hub and its cache.
        is_listed: Whether `digests` holds all files of the commit, not only the cached ones.
    """

    repo_id: str
    commit: str
    digests: Mapping[str, Digest | None]
    access: Access
    is_listed: bool = True


def resolve(repo_id: str, revision: str | None, access: Access) -> Snapshot:
    """Resolves a branch, tag or commit to a commit and the list of its files.

    A commit that was resolved before needs no request; offline, a branch or tag needs none either.
    If the Hub does not answer or the cache is read-only, the cached commit is used.

    Raises:
        RepositoryError: The repository or revision does not exist, or you have no access to it.
        NetworkError: The Hub does not answer and the cache does not hold the revision.
    """
    commit = _known_commit(repo_id, revision or constants.DEFAULT_REVISION, access)
    listed = commit and _listed_snapshot(repo_id, commit, access)
    if listed and revision == commit and not access.force_download:
        return listed
    try:
        declared = _declared_snapshot(repo_id, revision, access)
    except NetworkError as error:
        known = listed or (commit and _cached_snapshot(repo_id, commit, access))
        if not known or access.force_download:
            raise
        if not access.offline:
            logger.warning("%s Using the cached commit %s.", error, commit)
        return known
    if commit and _cannot_be_stored(declared):
        known = _cached_snapshot(repo_id, commit, access)
        if known:
            logger.warning(
                "%s has a new commit %s, but the cache at %s is read-only. Using the cached commit "
                "%s.",
                *(_of(repo_id, revision), declared.commit, access.cache, commit),
            )
            return listed or known
    return declared


def fetch(snapshot: Snapshot, filename: str, pinned: Digest | None = None) -> Path:
    """Returns the path of a verified file, and downloads it if it is not cached.

    A damaged file is downloaded again, once.

    Raises:
        CacheError: The cache cannot be read or written.
        IntegrityError: The file does not have the published hash, even after a new download.
        HubError: The file cannot be fetched.
    """
    path = None if snapshot.access.force_download else _cached_file(snapshot, filename)
    if path is None:
        path = _download(snapshot, filename)
    try:
        digest = pinned or _digest(snapshot, filename, path)
        if integrity.matches(path, digest, again=snapshot.access.hash_again):
            return path
    except OSError as error:
        raise _unreadable(path, error) from None
    return _repair(snapshot, filename, path, digest)


def may_have(snapshot: Snapshot, filename: str) -> bool:
    """Returns whether a repository has a file; True if this is unknown."""
    if filename in snapshot.digests or snapshot.is_listed:
        return filename in snapshot.digests
    folder = _folder(snapshot.repo_id, snapshot.access)
    return not listings.is_proven_absent(folder, snapshot.commit, filename)


def cached(repo_id: str, filename: str, commit: str, access: Access) -> Path | None:
    """Returns the path of a cached file, or None. Makes no request and does not verify it."""
    return _cached_file(Snapshot(repo_id, commit, {}, access), filename)


def _declared_snapshot(repo_id: str, revision: str | None, access: Access) -> Snapshot:
    if access.offline:
        raise NotCachedError(
            f"{_of(repo_id, revision)} is not in the cache at {access.cache}, and "
            "local_files_only or HF_HUB_OFFLINE forbids requests. Load it once while online."
        )
    from huggingface_hub import HfApi  # noqa: PLC0415  # the cache needs no client

    from hfclip.hub.ask import ask  # noqa: PLC0415

    info = ask(
        lambda: HfApi().model_info(
            repo_id, revision=revision, files_metadata=True, token=access.token
        ),
        _of(repo_id, revision),
    )
    digests = {
        file.rfilename: Digest("sha256", file.lfs.sha256)
        if file.lfs
        else digest_named(file.blob_id or "")
        for file in info.siblings or []
    }
    if info.sha is None:
        raise NetworkError(f"The Hub returned no commit for {_of(repo_id, revision)}. Try again.")
    snapshot = Snapshot(repo_id, info.sha, digests, access)
    _note_revision(snapshot, revision or constants.DEFAULT_REVISION)
    listings.remember_listing(repo_id, info.sha, digests)
    return snapshot


def _listed_snapshot(repo_id: str, commit: str, access: Access) -> Snapshot | None:
    """Returns a commit with its recorded listing, which cannot change, or None without one."""
    listing = listings.read_listing(repo_id, commit, _folder(repo_id, access))
    return None if listing is None else Snapshot(repo_id, commit, listing, access)


def _cannot_be_stored(snapshot: Snapshot) -> bool:
    """Returns whether a commit is not in the cache and the cache is read-only."""
    if snapshot.access.force_download:
        return False
    snapshots = _folder(snapshot.repo_id, snapshot.access) / "snapshots"
    can_read, can_write = (os.access(snapshots, mode) for mode in (os.R_OK | os.X_OK, os.W_OK))
    return can_read and not can_write and not (snapshots / snapshot.commit).is_dir()


def _cached_snapshot(repo_id: str, commit: str, access: Access) -> Snapshot | None:
    """Returns the cached files of a commit without hashes, or None if no file is cached."""
    root = _folder(repo_id, access) / "snapshots" / commit
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    if not names:
        return None
    return Snapshot(repo_id, commit, dict.fromkeys(names), access, is_listed=False)


def _known_commit(repo_id: str, revision: str, access: Access) -> str | None:
    """Returns the last known commit of a branch or tag, or None."""
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        return (_folder(repo_id, access) / "refs" / revision).read_text().strip()
    except OSError:
        return None


def _note_revision(snapshot: Snapshot, revision: str) -> None:
    """Writes the commit of a branch or tag where the client does, for offline use."""
    known = _known_commit(snapshot.repo_id, revision, snapshot.access)
    if known != snapshot.commit and ".." not in revision:
        refs = _folder(snapshot.repo_id, snapshot.access) / "refs"
        integrity.note(refs / revision, snapshot.commit)


def _cached_file(snapshot: Snapshot, filename: str) -> Path | None:
    folder = _folder(snapshot.repo_id, snapshot.access)
    try:
        return cached_file(folder, snapshot.commit, filename)
    except OSError as error:
        raise _unreadable(folder, error) from None


def _download(snapshot: Snapshot, filename: str, *, force: bool = False) -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  # the cache needs no client

    from hfclip.hub.ask import ask  # noqa: PLC0415

    access = snapshot.access
    what = f"{filename} of {_of(snapshot.repo_id, snapshot.commit)}"
    path = ask(
        lambda: hf_hub_download(
            snapshot.repo_id,
            filename,
            revision=snapshot.commit,
            cache_dir=access.cache,
            token=access.token,
            local_files_only=access.local_files_only,
            force_download=force or access.force_download,
        ),
        what,
        model=f"{snapshot.repo_id}@{snapshot.commit}",
    )
    _sweep(snapshot, filename, Path(path))
    return Path(path)


def _digest(snapshot: Snapshot, filename: str, path: Path) -> Digest:
    """Returns the expected hash of a file that has no pinned hash."""
    digest = snapshot.digests.get(filename) or _named_by_cache(path)
    if digest is None:
        digest = integrity.identify(path, _blob_names(snapshot))
    if digest is None and not snapshot.access.offline:
        declared = _declared_snapshot(snapshot.repo_id, snapshot.commit, snapshot.access)
        digest = declared.digests.get(filename)
    if digest is None:
        raise IntegrityError(
            f"The expected hash of {path} is unknown on this machine, and no request was made. The "
            "cache was copied or written without its links, and its blobs folder has no file named "
            "after the hash of this file. Load it once while online; hfclip then records the hash."
        )
    return digest


def _named_by_cache(path: Path) -> Digest | None:
    """Returns the hash in the name of a file's blob, or the recorded hash in a cache without links.

    Only the first link is followed: a second one leads to a store with hashes of another kind.
    """
    if path.is_symlink():
        return digest_named(path.readlink().name)
    record = integrity.recall(path)
    return record.digest if record else None


def _blob_names(snapshot: Snapshot) -> list[str]:
    """Returns the names of the repository's blobs in the cache, which are hashes."""
    blobs = _folder(snapshot.repo_id, snapshot.access) / "blobs"
    return [path.name for path in blobs.iterdir()] if blobs.is_dir() else []


def _unreadable(path: Path, error: OSError) -> CacheError:
    return CacheError(
        f"{error.filename or path} cannot be read: {error.strerror}. Check the owner and the "
        "permissions of the cache, or set HF_HOME to another folder."
    )


def _repair(snapshot: Snapshot, filename: str, path: Path, digest: Digest) -> Path:
    if snapshot.access.offline:
        happened = "It was damaged or replaced, and requests are forbidden"
        raise _damaged(snapshot, path, digest, happened)
    logger.warning("%s does not have the hash %s; downloading it again.", path, digest.value)
    _discard(path)
    path = _download(snapshot, filename, force=True)
    if not integrity.matches(path, digest):
        happened = "A new download has a wrong hash too, and was removed"
        error = _damaged(snapshot, path, digest, happened)
        _discard(path)
        raise error
    return path


def _discard(path: Path) -> None:
    """Removes a damaged file and its link targets from the cache, so that no tool uses it."""
    target = path.parent / path.readlink() if path.is_symlink() else path
    chain = [path, target]
    if target.is_symlink():  # the store that repositories share
        chain.append(target.parent / target.readlink())
    for link in chain:
        link.unlink(missing_ok=True)


def _sweep(snapshot: Snapshot, filename: str, path: Path) -> None:
    """Removes the partial files of killed downloads of this file."""
    digest = snapshot.digests.get(filename) or _named_by_cache(path)
    if digest is None:
        return
    folder = _folder(snapshot.repo_id, snapshot.access)
    leftovers = list((folder / "blobs").glob(f"{digest.value}.*incomplete"))
    if leftovers:
        from filelock import FileLock  # noqa: PLC0415  # leftovers are rare

        lock = snapshot.access.cache / ".locks" / folder.name / f"{digest.value}.lock"
        with FileLock(lock):  # the process that holds it may write one of them
            for leftover in leftovers:
                leftover.unlink(missing_ok=True)


def _folder(repo_id: str, access: Access) -> Path:
    return access.cache / repository_folder(repo_id)


def _damaged(snapshot: Snapshot, path: Path, digest: Digest, what_happened: str) -> IntegrityError:
    actual = integrity.compute(path, digest.kind)
    return IntegrityError(
        f"{path} has {digest.kind} {actual}; {_of(snapshot.repo_id, snapshot.commit)} publishes "
        f"{digest.value}. {what_happened}. Download it again with `hfclip verify "
        f"{snapshot.repo_id}@{snapshot.commit} --repair`; if that does not help, the repository or "
        "the network sends wrong bytes."
    )


def _of(repo_id: str, revision: str | None) -> str:
    return repo_id if revision is None else f"{repo_id} at {revision}"
