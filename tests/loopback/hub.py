"""The loopback Hub that tests use."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Self

from .faults import Fault, Order, Orders
from .messages import Call, Reply, Request, ServerName
from .repository import Account, Blob, Registry, Repository, Source
from .routes import find, serve
from .server import LoopbackServer
from .visit import Visit
from .xet import XetStore

# Environment variables of the developer that could change a test.
FOREIGN_PREFIXES = ("HF_", "HUGGING", "XDG_")
FOREIGN_SUFFIX = "_PROXY"


class LoopbackHub:
    """A Hub for the real client of huggingface_hub, which runs inside a `with` block.

    Errors inside the Hub, or in an action of `faults.Before`, are raised at the end of the
    block.
    """

    def __init__(self) -> None:
        self._log: list[Call] = []
        self._orders = Orders()
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = stack.enter_context(TemporaryDirectory(prefix="loopback-hub-"))
            self._registry = Registry(Path(folder, "uploads"))
            self._xet = XetStore(Path(folder, "xet"))
            self._hub = stack.enter_context(LoopbackServer(partial(self._answer, "hub")))
            self._cdn = stack.enter_context(LoopbackServer(partial(self._answer, "cdn")))
            stack.callback(self._stopping.set)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        for failure in self._hub.failures + self._cdn.failures:
            raise failure

    @property
    def endpoint(self) -> str:
        """The value for HF_ENDPOINT and `endpoint=`."""
        return self._hub.url

    @property
    def calls(self) -> list[Call]:
        """All requests so far to the Hub and its CDN, in the order of arrival."""
        return list(self._log)

    @property
    def xet_folder(self) -> Path:
        """The folder of the xet store. Its xorbs are files, which tests can damage."""
        return self._xet.folder

    def forget_calls(self) -> None:
        self._log.clear()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Removes afterwards what is added in the block: repositories, commits, files and calls."""
        registry, calls = self._registry, self.calls
        repositories = {name: each.copied() for name, each in registry.repositories.items()}
        files = dict(registry.lfs)
        try:
            yield
        finally:
            registry.repositories, registry.lfs = repositories, files
            self._log[:] = calls

    def add_account(
        self,
        name: str,
        token: str,
        role: Literal["read", "write"] = "write",
        organizations: Iterable[str] = (),
    ) -> None:
        """Adds an account with a token, or another token to an existing account."""
        self._registry.accounts[token] = Account(name, role, tuple(organizations))

    def add_repository(
        self,
        repo_id: str,
        files: Mapping[str, Source],
        *,
        private: bool = False,
        gated: bool = False,
        xet: bool = False,
    ) -> str:
        """Creates a repository with these files on the branch main and returns the commit id.

        The id of a dataset begins with "datasets/" and that of a Space with "spaces/", as in
        their URLs.

        With `xet`, its LFS files are also in the xet store, where clients that support xet
        get them.
        """
        self._registry.repositories[repo_id] = Repository(repo_id, private, gated, xet)
        return self.push(repo_id, files, title="initial commit")

    def repository(self, repo_id: str) -> Repository:
        return self._registry.repositories[repo_id]

    def push(
        self,
        repo_id: str,
        changes: Mapping[str, Source | None],
        *,
        branch: str = "main",
        tag: str | None = None,
        title: str = "push",
    ) -> str:
        """Commits files without checking permissions and returns the commit id.

        None deletes a file. A new branch starts at main. An existing tag moves.
        """
        repository = self.repository(repo_id)
        blobs = {
            path: None if source is None else self._take_in(repository, path, source)
            for path, source in changes.items()
        }
        if branch not in repository.branches and "main" in repository.branches:
            repository.branches[branch] = repository.branches["main"]
        commit = repository.commit(blobs, branch, title)
        if tag is not None:
            repository.tags[tag] = commit
        return commit.id

    def _take_in(self, repository: Repository, path: str, source: Source) -> Blob:
        blob = self._registry.blob(path, source)
        if not repository.xet or blob.sha256 is None:
            return blob
        return replace(blob, xet_hash=self._xet.put(blob.content, blob.sha256))

    def grant_access(self, repo_id: str, account: str) -> None:
        """Lets an account read the files of a gated repository."""
        self.repository(repo_id).granted.add(account)

    def fault(
        self,
        fault: Fault,
        path: str = "/*",
        *,
        method: str = "GET",
        times: int | None = 1,
        skip: int = 0,
    ) -> Order:
        """Requests a fault for the next `times` requests (None: all) after `skip` normal ones.

        `path` is the path of a file in its repository, for example "model.safetensors". With a
        leading slash it is the path of a URL: "/_lfs/*" on the CDN or "/api/*" on the Hub. Both
        `path` and `method` may contain wildcards.
        """
        return self._orders.add(Order(fault, path, method, times, skip))

    def forget_faults(self) -> None:
        self._orders.clear()

    def environment(
        self, home: Path, token: str | None = None, *, xet: bool = False
    ) -> dict[str, str]:
        """Returns environment variables for a child process that uses only this Hub.

        `home` replaces the user's home directory and its caches. Xet is off by default: the
        client would use it for each upload, but the xet store of this Hub is read-only.
        """
        own = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
        settings = {
            "HOME": str(home),
            "HF_HOME": str(home / ".cache" / "huggingface"),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": str(int(not xet)),
            "NO_PROXY": "127.0.0.1",
        }
        return own | settings | ({"HF_TOKEN": token} if token else {})

    def _answer(self, server: ServerName, request: Request) -> Reply:
        handler, names = find(server, request.method, request.path)
        call = self._note(server, request, names.get("path"))
        due = self._orders.due(call)
        reply = self._instead(due)
        if reply is None:
            reply = serve(server, self._visit(request, names), handler)
        if request.method == "HEAD":
            reply = reply.without_body()
        for fault in due:
            reply = fault.spoil(reply, self._stopping.wait)
        call.status = reply.status
        return reply

    def _instead(self, faults: list[Fault]) -> Reply | None:
        """Returns the reply of the first fault that answers instead of the Hub."""
        for fault in faults:
            reply = fault.before(self._stopping.wait)
            if reply is not None:
                return reply
        return None

    def _visit(self, request: Request, names: Mapping[str, str]) -> Visit:
        places = (self._hub.url, self._cdn.url, self._xet.url)
        return Visit(self._registry, *places, request, names)

    def _note(self, server: ServerName, request: Request, file: str | None) -> Call:
        about = (request.method, request.path, request.query, request.headers)
        call = Call(server, *about, file or request.query.get("path"))
        self._log.append(call)
        return call


def _is_foreign(name: str) -> bool:
    return name.startswith(FOREIGN_PREFIXES) or name.upper().endswith(FOREIGN_SUFFIX)
