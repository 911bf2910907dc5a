"""Sends a folder to a repository on the Hub: in one commit, or not at all.

Everything that can be refused is refused before the first byte goes out. Large files go up first,
and the Hub keeps them by their hashes; the commit that names them comes last. So whoever is cut
off leaves the repository at its old commit, and does not send again what is up already.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    ModelInfo,
    constants,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils._paths import filter_repo_objects
from huggingface_hub.utils._validators import validate_repo_id

from hfclip.cards.renewal import read_card as read_card_file
from hfclip.errors import HfclipError, PublishError, RepositoryError
from hfclip.hub import fetch as hub
from hfclip.hub import integrity
from hfclip.hub.causes import token_note
from hfclip.hub.errors import in_our_words, may_pass
from hfclip.hub.fetch import Access
from hfclip.hub.integrity import digest_named
from hfclip.layouts.files import CARD_FILE

CardRule = Literal["refuse", "keep", "replace"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Repository:
    """A repository that may be written to, and what it holds now.

    Attributes:
        repo_id: Its full name.
        head: The commit that the branch stands at; None if there is no such repository yet.
        files: Its files with their hashes: sha256 of large ones, git's id of others.
    """

    repo_id: str
    head: str | None
    files: dict[str, str]


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        repo_id: Where to.
        commit: The commit that holds the files.
        url: The commit's page, or the pull request's.
        sent: The files of that commit that were new or changed.
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
) -> Repository:
    """Looks whether a repository can be written to with this token; sends nothing.

    Args:
        repo_id: `org/name`, or a name in one's own namespace.
        token: A Hub token; by default the stored one.
        branch: By default main.
        create_pr: Whether a pull request is meant, for which no right to write is needed.

    Raises:
        RepositoryError: The name cannot be a repository's, there is no token, or it is not
            known, may not write, or not there.
        NetworkError: The Hub cannot be reached.
    """
    _check_name(repo_id)
    account = _account(token)
    if "/" not in repo_id:
        repo_id = f"{account['name']}/{repo_id}"
    if not create_pr:
        _check_rights(account, repo_id)
    info = _info(repo_id, branch, token)
    if info is None and create_pr:
        raise RepositoryError(f"{repo_id} does not exist, so there is nothing to pull into.")
    files = {
        file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id or ""
        for file in (info.siblings if info else None) or []
    }
    return Repository(repo_id, info.sha if info else None, files)


def choose_files(folder: Path, repository: Repository, card: CardRule) -> list[Path]:
    """The files of a folder that a push sends.

    Args:
        folder: Its files, those in it and not below.
        repository: Where to.
        card: What to do where the repository has another README.md: refuse, keep it, replace it.

    Raises:
        PublishError: The repository has another README.md and the rule is to refuse.
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    theirs = repository.files.get(CARD_FILE)
    ours = folder / CARD_FILE
    if theirs is None or not ours.is_file() or _is_same(ours, theirs):
        return paths
    if card == "refuse":
        raise PublishError(
            f"{repository.repo_id} has a {CARD_FILE} already that hfclip did not write. Keep it "
            'with --keep-card (card="keep" in Python), or put the new one in its place with '
            '--replace-card (card="replace").'
        )
    return [path for path in paths if card == "replace" or path != ours]


def read_card(repository: Repository, *, token: str | bool | None = None) -> str | None:
    """Reads the README.md of a repository; None if it has none.

    Raises:
        HubError: It cannot be fetched.
    """
    if repository.head is None or CARD_FILE not in repository.files:
        return None
    snapshot = hub.resolve(repository.repo_id, repository.head, Access(token))
    return read_card_file(hub.fetch(snapshot, CARD_FILE))


def matching(
    names: Iterable[str],
    allow: list[str] | str | None = None,
    ignore: list[str] | str | None = None,
) -> list[str]:
    """Those names that one pattern of `allow` fits (None: all) and none of `ignore` does."""
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
    """Sends files in one commit on top of the one that was looked at.

    Raises:
        HubError: Something failed; the repository stands where it stood.
    """
    api, repo_id = HfApi(token=token), repository.repo_id
    sent = [path for path in paths if not _is_same(path, repository.files.get(path.name))]
    if repository.head and not sent and not delete:
        return Pushed(repo_id, repository.head, f"{constants.ENDPOINT}/{repo_id}", [])
    check_card(sent)
    if repository.head is None:
        _ask(lambda: api.create_repo(repo_id, private=private, exist_ok=True), repo_id)
    commit = _ask(
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
        ),
        repo_id,
    )
    url = commit.pr_url or commit.commit_url
    return Pushed(repo_id, commit.oid, url, [path.name for path in sent])


def check_card(paths: Sequence[Path]) -> None:
    """Asks the Hub whether it accepts the head of the card among these files.

    Raises:
        PublishError: The Hub refuses it.
        HubError: The Hub cannot be asked.
    """

    def validate() -> None:
        try:
            card.validate()
        except ValueError as error:
            raise PublishError(f"The Hub refuses the head of {CARD_FILE}: {error}") from None

    for path in paths:
        if path.name == CARD_FILE:
            card = ModelCard.load(path, ignore_metadata_errors=True)
            _ask(validate, f"The head of {CARD_FILE}", "checked")


def tag(repo_id: str, name: str, commit: str, *, token: str | bool | None = None) -> None:
    """Names a commit; a tag that stands there already is left where it is.

    Raises:
        HubError: The Hub refuses or cannot be reached.
    """
    api = HfApi(token=token)
    _ask(
        lambda: api.create_tag(repo_id, tag=name, revision=commit, exist_ok=True),
        f"{repo_id} at {commit[:12]}",
        "tagged",
    )


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RepositoryError(
            f"{repo_id!r} is no name that a repository can have: letters, digits, '-', '_' and "
            "'.', at most 96 of them, as in me/my-clip."
        ) from error


def _account(token: str | bool | None) -> dict[str, Any]:
    if token is False or (not isinstance(token, str) and get_token() is None):
        raise RepositoryError(
            "Nobody is logged in to the Hub. Run `hf auth login` with a token that may write, or "
            f"set HF_TOKEN.{token_note()}"
        )
    return _ask(lambda: HfApi(token=token).whoami(), "The name of your account", "fetched")


def _check_rights(account: dict[str, Any], repo_id: str) -> None:
    namespace = repo_id.split("/", maxsplit=1)[0]
    open_to = [account["name"], *(org["name"] for org in account.get("orgs", []))]
    if namespace not in open_to:
        raise RepositoryError(
            f"{repo_id} is not yours to write to: you are {account['name']}, and may write to "
            f"{', '.join(open_to)}. Name one of these, or open a pull request: --create-pr on the "
            "command line, create_pr=True in Python."
        )
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise RepositoryError(
            f"The token of {account['name']} may only read. Make one that may write on the Hub's "
            "settings page, then `hf auth login`."
        )


def _info(repo_id: str, branch: str | None, token: str | bool | None) -> ModelInfo | None:
    def look() -> ModelInfo | None:
        try:
            return HfApi(token=token).model_info(repo_id, revision=branch, files_metadata=True)
        except RepositoryNotFoundError:
            return None

    return _ask(look, f"The list of files of {repo_id}", "fetched")


def _ask(request: Callable[[], _T], what: str, done: str = "sent") -> _T:
    """Makes a request, at most twice, and raises its failure as a HubError.

    Args:
        request: The request.
        what: The subject of the message, such as a repository.
        done: The participle of the message: "fetched", "checked", "tagged" or "sent".
    """
    try:
        try:
            return request()
        except Exception as error:  # the client lets many kinds through
            if not may_pass(error):
                raise
            return request()
    except HfclipError:
        raise
    except Exception as error:  # noqa: BLE001
        if isinstance(error, HfHubHTTPError) and error.response.status_code == 412:
            raise PublishError(
                f"{what} has a newer commit than the one that was looked at; nothing was changed. "
                "Look at what came in between, then try again."
            ) from None
        # Without the cause: it may show a token.
        raise in_our_words(error, what, done) from None


def _is_same(path: Path, theirs: str | None) -> bool:
    digest = digest_named(theirs or "")
    return digest is not None and integrity.compute(path, digest.kind) == digest.value
