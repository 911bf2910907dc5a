"""Fetches files from the Hub through its client's cache, and lets none pass unverified.

A revision is resolved to a commit once, and every file is asked for by that commit, so that a push
in between cannot mix two. The client itself checks no more than sizes; here each file is held
against a hash: the pinned one, else what the Hub declares, else what the cache named it after.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name

from hfclip.errors import CacheError, HubError, IntegrityError, NetworkError
from hfclip.hub import integrity, listings
from hfclip.hub.errors import NotCachedError, in_our_words, may_pass
from hfclip.hub.integrity import Digest, digest_named
from hfclip.hub.patience import bounded

logger = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Access:
    """How the Hub and its cache are to be used; the names are the Hub client's own.

    Attributes:
        token: A token, True for the stored one, False for none; by default the stored one if any.
        cache_dir: The cache's folder; by default HF_HUB_CACHE or what HF_HOME says.
        local_files_only: Whether to make no request at all.
        force_download: Whether to fetch again what the cache holds.
        hash_again: Whether to hash files that have passed before, too.
    """

    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False
    hash_again: bool = False

    @property
    def offline(self) -> bool:
        """Whether requests are ruled out, here or by HF_HUB_OFFLINE."""
        return self.local_files_only or constants.is_offline_mode()

    @property
    def cache(self) -> Path:
        """The folder of the Hub client's cache."""
        return Path(self.cache_dir or constants.HF_HUB_CACHE).expanduser()


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit.

    Attributes:
        digests: All its files' names with their hashes; where the Hub was never asked, those of
            its files that the cache holds, with None.
        is_listed: Whether `digests` names all its files, and not only those in the cache.
    """

    repo_id: str
    commit: str
    digests: Mapping[str, Digest | None]
    access: Access
    is_listed: bool = True


def resolve(repo_id: str, revision: str | None, access: Access) -> Snapshot:
    """Turns a branch, tag or commit into a commit and the list of its files.

    A commit that was resolved before, and offline a branch, need no request. Where the Hub does
    not answer, or the cache cannot be written to, the commit that is cached is used.

    Raises:
        RepositoryError: The repository or revision does not exist, or is not open to you.
        NetworkError: The Hub does not answer and the cache holds nothing.
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
                "%s has a new commit %s, and the cache at %s cannot be written to. Using the "
                "cached commit %s.",
                *(_of(repo_id, revision), declared.commit, access.cache, commit),
            )
            return listed or known
    return declared


def fetch(snapshot: Snapshot, filename: str, pinned: Digest | None = None) -> Path:
    """Gives the path of a file that has the published hash, downloading it if need be.

    A damaged file is fetched anew, once.

    Raises:
        CacheError: The cache cannot be read or written.
        IntegrityError: Its bytes are wrong and could not be replaced by the right ones.
        HubError: It cannot be had.
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
    """Whether a repository has a file, or nothing on this machine proves that it does not."""
    if filename in snapshot.digests or snapshot.is_listed:
        return filename in snapshot.digests
    folder = _folder(snapshot.repo_id, snapshot.access)
    return not listings.is_proven_absent(folder, snapshot.commit, filename)


def cached(repo_id: str, filename: str, commit: str, access: Access) -> Path | None:
    """Where the cache holds a file of a commit; makes no request and verifies nothing."""
    return _cached_file(Snapshot(repo_id, commit, {}, access), filename)


def _declared_snapshot(repo_id: str, revision: str | None, access: Access) -> Snapshot:
    if access.offline:
        raise NotCachedError(
            f"{_of(repo_id, revision)} is not in the cache at {access.cache}, and requests are "
            "ruled out (local_files_only or HF_HUB_OFFLINE). Load it once with a network."
        )
    info = _ask(
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
        raise NetworkError(f"The Hub names no commit for {_of(repo_id, revision)}. Try again.")
    snapshot = Snapshot(repo_id, info.sha, digests, access)
    _note_revision(snapshot, revision or constants.DEFAULT_REVISION)
    listings.remember_listing(repo_id, info.sha, digests)
    return snapshot


def _listed_snapshot(repo_id: str, commit: str, access: Access) -> Snapshot | None:
    """What the Hub once said of a commit, which cannot change."""
    listing = listings.read_listing(repo_id, commit, _folder(repo_id, access))
    return None if listing is None else Snapshot(repo_id, commit, listing, access)


def _cannot_be_stored(snapshot: Snapshot) -> bool:
    """Whether a commit is not in the cache, and the cache is read-only."""
    if snapshot.access.force_download:
        return False
    snapshots = _folder(snapshot.repo_id, snapshot.access) / "snapshots"
    can_read, can_write = (os.access(snapshots, mode) for mode in (os.R_OK | os.X_OK, os.W_OK))
    return can_read and not can_write and not (snapshots / snapshot.commit).is_dir()


def _cached_snapshot(repo_id: str, commit: str, access: Access) -> Snapshot | None:
    """A commit as far as the cache holds it; the cache's own names tell the hashes later."""
    root = _folder(repo_id, access) / "snapshots" / commit
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    if not names:
        return None
    return Snapshot(repo_id, commit, dict.fromkeys(names), access, is_listed=False)


def _known_commit(repo_id: str, revision: str, access: Access) -> str | None:
    """The commit that a branch or tag stood for when the Hub was last asked."""
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        return (_folder(repo_id, access) / "refs" / revision).read_text().strip()
    except OSError:
        return None


def _note_revision(snapshot: Snapshot, revision: str) -> None:
    """Writes down what a branch or tag stands for, where the client would, for offline use."""
    known = _known_commit(snapshot.repo_id, revision, snapshot.access)
    if known != snapshot.commit and ".." not in revision:
        refs = _folder(snapshot.repo_id, snapshot.access) / "refs"
        integrity.note(refs / revision, snapshot.commit)


def _cached_file(snapshot: Snapshot, filename: str) -> Path | None:
    try:
        found = try_to_load_from_cache(
            snapshot.repo_id,
            filename,
            cache_dir=snapshot.access.cache,
            revision=snapshot.commit,
        )
    except OSError as error:
        raise _unreadable(_folder(snapshot.repo_id, snapshot.access), error) from None
    return Path(found) if isinstance(found, str) else None


def _download(snapshot: Snapshot, filename: str, *, force: bool = False) -> Path:
    access = snapshot.access
    what = f"{filename} of {_of(snapshot.repo_id, snapshot.commit)}"
    path = _ask(
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
        f"{snapshot.repo_id}@{snapshot.commit}",
    )
    _sweep(snapshot, filename, Path(path))
    return Path(path)


def _digest(snapshot: Snapshot, filename: str, path: Path) -> Digest:
    """The strongest hash at hand for a file that is not pinned."""
    digest = snapshot.digests.get(filename) or _named_by_cache(path)
    if digest is None:
        digest = integrity.identify(path, _blob_names(snapshot))
    if digest is None and not snapshot.access.offline:
        declared = _declared_snapshot(snapshot.repo_id, snapshot.commit, snapshot.access)
        digest = declared.digests.get(filename)
    if digest is None:
        raise IntegrityError(
            f"Nothing on this machine tells what {path} should hash to, and the Hub was not asked. "
            "The cache was copied or written without its links, and no name in its blobs folder is "
            "the hash of this file. Load it once with a network; hfclip then remembers."
        )
    return digest


def _named_by_cache(path: Path) -> Digest | None:
    """What the cache named a file after, or what is remembered where the cache has no links.

    One link is followed and no more: beyond it lies a store whose names are hashes of another kind.
    """
    if path.is_symlink():
        return digest_named(path.readlink().name)
    record = integrity.recall(path)
    return record.digest if record else None


def _blob_names(snapshot: Snapshot) -> list[str]:
    """The hashes that the cache has named files of the repository after."""
    blobs = _folder(snapshot.repo_id, snapshot.access) / "blobs"
    return [path.name for path in blobs.iterdir()] if blobs.is_dir() else []


def _unreadable(path: Path, error: OSError) -> CacheError:
    return CacheError(
        f"{error.filename or path} cannot be read: {error.strerror}. Check who owns the cache at "
        "that place, or set HF_HOME elsewhere."
    )


def _repair(snapshot: Snapshot, filename: str, path: Path, digest: Digest) -> Path:
    if snapshot.access.offline:
        happened = "It was damaged or replaced, and requests are ruled out"
        raise _damaged(snapshot, path, digest, happened)
    logger.warning("%s does not hash to %s; fetching it again.", path, digest.value)
    _discard(path)
    path = _download(snapshot, filename, force=True)
    if not integrity.matches(path, digest):
        happened = "A fresh download is no better, and was removed"
        error = _damaged(snapshot, path, digest, happened)
        _discard(path)
        raise error
    return path


def _discard(path: Path) -> None:
    """Removes a file from the cache, and what it links to, so that no tool takes it for good."""
    target = path.parent / path.readlink() if path.is_symlink() else path
    chain = [path, target]
    if target.is_symlink():  # into the store that repositories share
        chain.append(target.parent / target.readlink())
    for link in chain:
        link.unlink(missing_ok=True)


def _sweep(snapshot: Snapshot, filename: str, path: Path) -> None:
    """Removes what downloads of this file left behind when they were killed."""
    digest = snapshot.digests.get(filename) or _named_by_cache(path)
    if digest is None:
        return
    folder = _folder(snapshot.repo_id, snapshot.access)
    leftovers = list((folder / "blobs").glob(f"{digest.value}.*incomplete"))
    if leftovers:
        lock = snapshot.access.cache / ".locks" / folder.name / f"{digest.value}.lock"
        with FileLock(lock):  # whoever holds it may be writing one of them
            for leftover in leftovers:
                leftover.unlink(missing_ok=True)


def _folder(repo_id: str, access: Access) -> Path:
    return access.cache / repo_folder_name(repo_id=repo_id, repo_type="model")


def _damaged(snapshot: Snapshot, path: Path, digest: Digest, what_happened: str) -> IntegrityError:
    actual = integrity.compute(path, digest.kind)
    return IntegrityError(
        f"{path} has {digest.kind} {actual}; {_of(snapshot.repo_id, snapshot.commit)} publishes "
        f"{digest.value}. {what_happened}. `hfclip verify {snapshot.repo_id}@{snapshot.commit} "
        "--repair` fetches it anew; if that does not help, the repository or the network hands out "
        "wrong bytes."
    )


def _ask(request: Callable[[], _T], what: str, model: str | None = None) -> _T:
    """Makes a request, once more where the connection broke, and puts its failure in our words."""
    try:
        with bounded():
            try:
                return request()
            except Exception as error:  # the client lets many kinds through
                if not may_pass(error):
                    raise
                return request()
    except HubError as error:
        raise NetworkError(f"{what} cannot be fetched: {error}. Try again later.") from None
    except Exception as error:  # noqa: BLE001
        # Without the cause: it may show a token, and it says what is said here at length.
        raise in_our_words(error, what, model=model) from None


def _of(repo_id: str, revision: str | None) -> str:
    return repo_id if revision is None else f"{repo_id} at {revision}"
