"""The data of a Hub: accounts, repositories, commits, and the content of files."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Self

CHUNK = 1 << 20
LFS_SUFFIXES = (".safetensors", ".pt", ".bin")
LFS_SIZE = 10_000_000
# A fixed date makes the commit ids equal in every run.
FIRST_DAY = datetime(2021, 2, 26, tzinfo=UTC)

Source = bytes | Path


class ParentMovedError(Exception):
    """The branch has moved since the parent commit of the change."""


@dataclass(frozen=True)
class Content:
    """Bytes in memory or in a file. A file is read in chunks."""

    source: Source

    @property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def open(self) -> BinaryIO:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")

    def read(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def sha256(self) -> str:
        with self.open() as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
            return digest.hexdigest()

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        with self.open() as stream:
            stream.seek(start)
            left = stop - start
            while left > 0 and (chunk := stream.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk


# The ids of datasets and Spaces begin with these in a registry, as in the Hub's URLs.
PREFIXES = {"dataset": "datasets/", "space": "spaces/"}


def name_of(repo_id: str) -> str:
    """Returns the id of a repository without the prefix of its kind."""
    for prefix in PREFIXES.values():
        repo_id = repo_id.removeprefix(prefix)
    return repo_id


def owner_of(repo_id: str) -> str:
    return name_of(repo_id).partition("/")[0]


def goes_to_lfs(path: str, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE


def git_blob_id(content: bytes) -> str:
    framed = b"blob %d\0" % len(content) + content
    return hashlib.sha1(framed, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Returns the pointer that git stores for a file in LFS."""
    lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{sha256}", f"size {size}")
    return "".join(f"{line}\n" for line in lines).encode()


@dataclass(frozen=True)
class Blob:
    """The content of a file with its git id. LFS files have other hashes too."""

    content: Content
    size: int
    oid: str
    sha256: str | None = None
    xet_hash: str | None = None

    @classmethod
    def regular(cls, content: Content) -> Self:
        return cls(content, content.size, git_blob_id(content.read()))

    @classmethod
    def lfs(cls, content: Content, sha256: str) -> Self:
        pointer = lfs_pointer(sha256, content.size)
        return cls(content, content.size, git_blob_id(pointer), sha256)

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    @property
    def pointer_size(self) -> int:
        return len(lfs_pointer(self.sha256 or "", self.size))


@dataclass(frozen=True, eq=False)
class Commit:
    """The state of all files, and the parent commit."""

    id: str
    parent: Commit | None = field(repr=False)
    files: Mapping[str, Blob]
    title: str
    date: datetime

    def history(self) -> Iterator[Commit]:
        commit: Commit | None = self
        while commit is not None:
            yield commit
            commit = commit.parent

    def folders(self) -> list[str]:
        parents = {folder for path in self.files for folder in _folders_above(path)}
        return sorted(parents)


def _folders_above(path: str) -> Iterable[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: depth + 1]) for depth in range(len(parts)))


def _commit_after(
    parent: Commit | None, files: Mapping[str, Blob], title: str, repository: str
) -> Commit:
    date = parent.date + timedelta(minutes=1) if parent else FIRST_DAY
    listing = [f"{blob.oid} {path}" for path, blob in sorted(files.items())]
    described = "\n".join([repository, parent.id if parent else "", title, *listing])
    commit_id = hashlib.sha1(described.encode(), usedforsecurity=False).hexdigest()
    return Commit(commit_id, parent, files, title, date)


@dataclass(frozen=True)
class Account:
    """The owner of a token, and the permissions of the token."""

    name: str
    role: str
    organizations: tuple[str, ...] = ()

    def owns(self, repo_id: str) -> bool:
        return owner_of(repo_id) in (self.name, *self.organizations)

    def may_write(self, repo_id: str) -> bool:
        return self.role == "write" and self.owns(repo_id)


@dataclass
class Repository:
    """A git repository with branches, tags, pull requests and read permissions."""

    id: str
    private: bool = False
    gated: bool = False
    xet: bool = False
    granted: set[str] = field(default_factory=set)
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)
    pull_requests: dict[str, Commit] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def copied(self) -> Self:
        """Returns a repository that does not change with this one."""
        return replace(
            self,
            granted=set(self.granted),
            branches=dict(self.branches),
            tags=dict(self.tags),
            pull_requests=dict(self.pull_requests),
            commits=dict(self.commits),
        )

    def shows_itself_to(self, account: Account | None) -> bool:
        return not self.private or (account is not None and account.owns(self.id))

    def gives_files_to(self, account: Account | None) -> bool:
        if not self.gated:
            return True
        return account is not None and (account.owns(self.id) or account.name in self.granted)

    def find(self, revision: str) -> Commit | None:
        """Returns the commit of a branch, a tag, `refs/pr/N` or a full commit id."""
        kinds = (self.branches, self.tags, self.pull_requests, self.commits)
        return next((kind[revision] for kind in kinds if revision in kind), None)

    def commit(
        self,
        changes: Mapping[str, Blob | None],
        onto: str,
        title: str,
        parent: str | None = None,
    ) -> Commit:
        """Moves `onto` (a branch or `refs/pr/N`) to a new commit. `None` deletes a file."""
        heads = self.pull_requests if onto.startswith("refs/pr/") else self.branches
        with self._lock:
            head = heads.get(onto)
            if parent is not None and (head is None or head.id != parent):
                raise ParentMovedError(head.id if head else "no commit")
            merged = {**(head.files if head else {}), **changes}
            files = {path: blob for path, blob in merged.items() if blob is not None}
            commit = _commit_after(head, files, title, self.id)
            heads[onto] = self.commits[commit.id] = commit
        return commit

    def open_pull_request(self, base: Commit) -> str:
        with self._lock:
            reference = f"refs/pr/{len(self.pull_requests) + 1}"
            self.pull_requests[reference] = base
        return reference


class Registry:
    """All accounts by token, all repositories by id, all LFS objects by sha256."""

    def __init__(self, uploads: Path) -> None:
        uploads.mkdir()
        self.uploads = uploads
        self.accounts: dict[str, Account] = {}
        self.repositories: dict[str, Repository] = {}
        self.lfs: dict[str, Content] = {}

    def blob(self, path: str, source: Source) -> Blob:
        """Stores a file, in LFS if its name or size requires that."""
        content = Content(source)
        if not goes_to_lfs(path, content.size):
            return Blob.regular(Content(content.read()))
        sha256 = content.sha256()
        return Blob.lfs(self.lfs.setdefault(sha256, content), sha256)

    def receive(self, sha256: str, chunks: Iterable[bytes]) -> bool:
        """Stores an uploaded LFS object if its bytes have the announced sha256."""
        digest = hashlib.sha256()
        handle, name = tempfile.mkstemp(dir=self.uploads)
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            Path(name).unlink()
            return False
        self.lfs[sha256] = Content(Path(name))
        return True
