"""A visit to the Hub: a request, its account, and the names in its URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .messages import RefusalError, Reply, Request
from .repository import Account, Blob, Commit, Registry, Repository


@dataclass(frozen=True)
class Visit:
    """A request, the names in its URL, the account of its token, and the data of the Hub."""

    registry: Registry
    hub: str
    cdn: str
    xet: str
    request: Request
    names: Mapping[str, str]

    @property
    def account(self) -> Account | None:
        """The account of the token. A wrong token is refused even if none is needed."""
        authorization = self.request.headers.get("authorization")
        if authorization is None:
            return None
        account = self.registry.accounts.get(authorization.removeprefix("Bearer "))
        if account is None:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return account

    def member(self) -> Account:
        if self.account is None:
            raise RefusalError(401, "Invalid username or password.")
        return self.account

    def repository(self) -> Repository:
        account = self.account
        repository = self.registry.repositories.get(self.names["repo"])
        if repository is None or not repository.shows_itself_to(account):
            # Without a token, a private repository looks as if it did not exist.
            status = 404 if account else 401
            raise RefusalError(status, "Repository not found", "RepoNotFound")
        return repository

    def readable_repository(self) -> Repository:
        repository = self.repository()
        if not repository.gives_files_to(self.account):
            message = f"Access to model {repository.id} is restricted."
            raise RefusalError(403 if self.account else 401, message, "GatedRepo")
        return repository

    def writable_repository(self) -> Repository:
        repository, member = self.repository(), self.member()
        if not member.may_write(repository.id):
            raise RefusalError(403, "You don't have the rights to write to this repository")
        return repository

    def changeable_repository(self) -> Repository:
        """Returns the repository for a write. Anyone may open a pull request."""
        if self.request.query.get("create_pr") != "1":
            return self.writable_repository()
        self.member()
        return self.readable_repository()

    def commit(self, repository: Repository) -> Commit:
        revision = self.names.get("rev", "main")
        commit = repository.find(revision)
        if commit is None:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def blob(self, commit: Commit) -> Blob:
        if self.names["path"] not in commit.files:
            headers = {"X-Repo-Commit": commit.id}
            raise RefusalError(404, "Entry not found", "EntryNotFound", headers)
        return commit.files[self.names["path"]]


Handler = Callable[[Visit], Reply]
