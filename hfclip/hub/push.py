"""Uploads a folder to a repository on the Hub in a single commit.

All checks run before the first byte is sent. Large files are uploaded first, and the Hub stores
them by their hashes; the commit comes last. An interrupted push leaves the repository at its old
commit, and the next push does not send the uploaded files again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    RepoCard,
    SpaceInfo,
    constants,
    get_token,
    hf_hub_download,
)
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils._paths import filter_repo_objects
from huggingface_hub.utils._validators import validate_repo_id

from hfclip.errors import ConfigError, IntegrityError, PublishError, RepositoryError
from hfclip.hub import fetch as hub
from hfclip.hub import integrity
from hfclip.hub.ask import ask
from hfclip.hub.causes import token_note
from hfclip.hub.fetch import Access
from hfclip.hub.integrity import digest_named
from hfclip.layouts.files import CARD_FILE
from hfclip.layouts.labels import LABELS_FILE, read_labels

CardRule = Literal["refuse", "keep", "replace"]
Kind = Literal["model", "space"]


@dataclass(frozen=True)
class Repository:
    """A repository that can be written to, and its files.

    Attributes:
        repo_id: The full name.
        head: The current commit of the branch, or None if the repository does not exist yet.
        files: The hashes of the files, by file name: the sha256 of large files, the git blob id of
            the others.
        kind: Whether it is the repository of a model or of a Space.
        is_private: Whether it is private or gated, so that a token is needed to read it.
    """

    repo_id: str
    head: str | None
    files: dict[str, str]
    kind: Kind = "model"
    is_private: bool = False

    @property
    def url(self) -> str:
        """The page of the repository."""
        return f"{constants.ENDPOINT}/{'spaces/' if self.kind == 'space' else ''}{self.repo_id}"

    @property
    def title(self) -> str:
        """The repository in messages."""
        return f"The Space {self.repo_id}" if self.kind == "space" else self.repo_id


@dataclass(frozen=True)
class Pushed:
    """The result of a push.

    Attributes:
        repo_id: The repository's id.
        commit: The commit with the files.
        url: The page of the commit or of the pull request.
        sent: The names of the files that were new or changed.
    """

    repo_id: str
    commit: str
    url: str
    sent: list[str]


def find_repository(
    repo_id: str,
    *,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    kind: Kind = "model",
) -> Repository:
    """Checks that a token can write to a repository, and lists its files. Sends nothing.

    Args:
        repo_id: `org/name`, or a name in your own namespace.
        token: A Hub token; by default the stored token.
        branch: A branch; by default main.
        create_pr: Whether to open a pull request, which needs no write access.
        kind: Whether it is the repository of a model or of a Space.

    Raises:
        RepositoryError: The name is invalid, there is no token, or the token is unknown or has no
            write access to the repository.
        NetworkError: The Hub cannot be reached.
    """
    _check_name(repo_id)
    account = _account(token)
    if "/" not in repo_id:
        repo_id = f"{account['name']}/{repo_id}"
    if not create_pr:
        _check_rights(account, repo_id)
    info = _info(repo_id, branch, token, kind)
    if info is None and create_pr:
        title = Repository(repo_id, None, {}, kind).title
        raise RepositoryError(f"{title} does not exist, so it cannot have a pull request.")
    files = {
        file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id or ""
        for file in (info.siblings if info else None) or []
    }
    if info is None:
        return Repository(repo_id, None, files, kind)
    return Repository(repo_id, info.sha, files, kind, bool(info.private or info.gated))


def is_private(repo_id: str, *, token: str | bool | None = None) -> bool:
    """Returns whether a model on the Hub is private or gated, so that a token is needed to read it.

    Raises:
        HubError: The Hub cannot be asked.
    """
    info = _info(repo_id, None, token, "model")
    return info is not None and bool(info.private or info.gated)


def choose_files(folder: Path, repository: Repository, card: CardRule) -> list[Path]:
    """Returns the files of a folder that a push sends.

    Args:
        folder: The folder. Files in its subfolders are not sent.
        repository: The target repository.
        card: The rule if the repository has a different README.md: "refuse" to push, "keep" it or
            "replace" it.

    Raises:
        PublishError: The repository has a different README.md and `card` is "refuse".
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    theirs = repository.files.get(CARD_FILE)
    ours = folder / CARD_FILE
    if theirs is None or not ours.is_file() or _is_same(ours, theirs):
        return paths
    if card == "refuse":
        raise PublishError(
            f"{repository.repo_id} already has a {CARD_FILE} that hfclip did not write. Keep it "
            'with --keep-card (card="keep" in Python), or replace it with --replace-card '
            '(card="replace").'
        )
    return [path for path in paths if card == "replace" or path != ours]


def stale_labels(
    repository: Repository, folder: Path, *, token: str | bool | None = None
) -> list[str]:
    """Returns the labels file of an earlier model in the repository, which a push must delete.

    `hfclip.load` would give these labels to the new model. A file of that name that is not hfclip's
    stays.

    Args:
        repository: The target repository.
        folder: The files of the new model.
        token: A Hub token.

    Returns:
        The name of the file, or nothing if the new model has labels or the repository has none.

    Raises:
        HubError: The file in the repository cannot be fetched.
    """
    is_there = repository.head is not None and LABELS_FILE in repository.files
    if not is_there or (folder / LABELS_FILE).is_file():
        return []
    snapshot = hub.resolve(repository.repo_id, repository.head, Access(token))
    try:
        is_stale = read_labels(hub.fetch(snapshot, LABELS_FILE)) is not None
    except ConfigError:  # a broken file would stop the load
        is_stale = True
    return [LABELS_FILE] if is_stale else []


def matching(
    names: Iterable[str],
    allow: list[str] | str | None = None,
    ignore: list[str] | str | None = None,
) -> list[str]:
    """Returns the names that match a pattern of `allow` (None: any name) and none of `ignore`."""
    return list(filter_repo_objects(names, allow_patterns=allow, ignore_patterns=ignore))


def push(
    paths: Sequence[Path],
    repository: Repository,
    *,
    message: str,
    delete: Sequence[str] = (),
    token: str | bool | None = None,
    private: bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
) -> Pushed:
    """Sends files in one commit, whose parent is `repository.head`.

    Raises:
        HubError: The push failed; the repository is unchanged.
    """
    api, repo_id = HfApi(token=token), repository.repo_id
    sent = [path for path in paths if not _is_same(path, repository.files.get(path.name))]
    if repository.head and not sent and not delete:
        return Pushed(repo_id, repository.head, repository.url, [])
    check_card(sent, repository.kind)
    if repository.head is None:
        sdk = "gradio" if repository.kind == "space" else None
        ask(
            lambda: api.create_repo(
                repo_id, repo_type=repository.kind, space_sdk=sdk, private=private, exist_ok=True
            ),
            repository.title,
            "sent",
            bounds=False,
        )
    commit = ask(
        lambda: api.create_commit(
            repo_id,
            [
                *[CommitOperationAdd(path.name, path) for path in sent],
                *[CommitOperationDelete(name) for name in delete],
            ],
            commit_message=message,
            revision=branch,
            create_pr=create_pr,
            parent_commit=None if create_pr else repository.head,
            repo_type=repository.kind,
        ),
        repository.title,
        "sent",
        bounds=False,
    )
    url = commit.pr_url or commit.commit_url
    return Pushed(repo_id, commit.oid, url, [path.name for path in sent])


def read_file(repository: Repository, name: str, *, token: str | bool | None = None) -> bytes:
    """Returns the content of a small file of a repository at its present commit.

    Raises:
        IntegrityError: The content does not have the hash that the Hub declares.
        HubError: The file cannot be fetched.
    """
    with TemporaryDirectory() as cache:
        path = Path(
            ask(
                lambda: hf_hub_download(
                    repository.repo_id,
                    name,
                    repo_type=repository.kind,
                    revision=repository.head,
                    cache_dir=cache,
                    token=token,
                ),
                f"{name} of {repository.repo_id}",
            )
        )
        if not _is_same(path, repository.files.get(name)):
            raise IntegrityError(
                f"{name} of {repository.repo_id} does not have the hash that the Hub declares. Try "
                "again."
            )
        return path.read_bytes()


def check_card(paths: Sequence[Path], kind: Kind = "model") -> None:
    """Checks with the Hub the metadata block of the card, if it is among these files.

    Raises:
        PublishError: The Hub rejects the metadata.
        HubError: The request failed.
    """

    def validate() -> None:
        try:
            card.validate(repo_type=kind)
        except ValueError as error:
            raise PublishError(f"The Hub rejects the metadata of {CARD_FILE}: {error}") from None

    for path in paths:
        if path.name == CARD_FILE:
            card = RepoCard.load(path, repo_type=kind, ignore_metadata_errors=True)
            ask(validate, f"The head of {CARD_FILE}", "checked", bounds=False)


def tag(repo_id: str, name: str, commit: str, *, token: str | bool | None = None) -> None:
    """Adds a tag to a commit. An existing tag of that name is not moved.

    Raises:
        HubError: The Hub rejects the request or cannot be reached.
    """
    api = HfApi(token=token)
    ask(
        lambda: api.create_tag(repo_id, tag=name, revision=commit, exist_ok=True),
        f"{repo_id} at {commit[:12]}",
        "tagged",
        bounds=False,
    )


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RepositoryError(
            f"{repo_id!r} is not a valid name for a repository. Use at most 96 letters, digits, "
            "'-', '_' and '.', as in me/my-clip."
        ) from error


def _account(token: str | bool | None) -> dict[str, Any]:
    if token is False or (not isinstance(token, str) and get_token() is None):
        raise RepositoryError(
            "You are not logged in to the Hub. Run `hf auth login` with a token that has write "
            f"access, or set HF_TOKEN.{token_note()}"
        )
    return ask(
        lambda: HfApi(token=token).whoami(), "The name of your account", "fetched", bounds=False
    )


def _check_rights(account: dict[str, Any], repo_id: str) -> None:
    namespace = repo_id.split("/", maxsplit=1)[0]
    open_to = [account["name"], *(org["name"] for org in account.get("orgs", []))]
    if namespace not in open_to:
        raise RepositoryError(
            f"You cannot write to {repo_id}: you are {account['name']}, and can write to "
            f"{', '.join(open_to)}. Name one of these, or open a pull request with --create-pr "
            "(create_pr=True in Python)."
        )
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise RepositoryError(
            f"The token of {account['name']} is read-only. Create a token with write access on "
            "the Hub's settings page, then run `hf auth login`."
        )


def _info(
    repo_id: str, branch: str | None, token: str | bool | None, kind: Kind
) -> ModelInfo | SpaceInfo | None:
    api = HfApi(token=token)
    fetch = api.space_info if kind == "space" else api.model_info

    def look() -> ModelInfo | SpaceInfo | None:
        try:
            return fetch(repo_id, revision=branch, files_metadata=True)
        except RepositoryNotFoundError:
            return None

    return ask(look, f"The list of files of {repo_id}", "fetched", bounds=False)


def _is_same(path: Path, theirs: str | None) -> bool:
    digest = digest_named(theirs or "")
    return digest is not None and integrity.compute(path, digest.kind) == digest.value
