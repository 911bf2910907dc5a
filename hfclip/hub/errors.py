"""Translates the errors of the Hub's client into hfclip's, with the cause and the remedy."""

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hfclip.errors import CacheError, HubError, NetworkError, RepositoryError
from hfclip.hub import causes
from hfclip.hub.missing import MissingRepositoryError


def may_pass(error: Exception) -> bool:
    """Returns whether a second request may succeed. The client repeats only some of these."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    cut_short = type(error) is OSError and error.errno is None  # fewer bytes than announced
    return cut_short or type(error).__name__ in _BROKEN_CONNECTIONS


# Exceptions of the library under the client. The client does not export a base class of them.
_BROKEN_CONNECTIONS = frozenset(
    {"ReadError", "WriteError", "RemoteProtocolError", "ReadTimeout", "ConnectTimeout"}
)


# The client's error, hfclip's error and the rest of its message. The first match applies.
_ANSWERS: tuple[tuple[type[Exception], type[HubError], str], ...] = (
    (
        GatedRepoError,
        RepositoryError,
        "is gated: request access on its page, then log in with `hf auth login` or set HF_TOKEN.",
    ),
    (RevisionNotFoundError, RepositoryError, "does not exist: no such branch, tag or commit."),
    (
        LocalEntryNotFoundError,
        NetworkError,
        "is not in the cache, and no request was made. Fetch it once: `hfclip download {model}`.",
    ),
    (EntryNotFoundError, RepositoryError, "does not exist: the repository has no such file."),
    (
        RepositoryNotFoundError,
        MissingRepositoryError,
        "does not exist or is private: check the name, then run `hf auth login` or set HF_TOKEN.",
    ),
    (HFValidationError, RepositoryError, "is not a valid name for a repository."),
    (
        OfflineModeIsEnabled,
        NetworkError,
        "is not in the cache, and HF_HUB_OFFLINE forbids requests. Unset it and load once online.",
    ),
    (
        LocalTokenNotFoundError,
        RepositoryError,
        "needs a token (token=True), but none is stored: run `hf auth login` or set HF_TOKEN.",
    ),
)
_STATUSES: dict[int, tuple[type[HubError], str]] = {
    401: (
        RepositoryError,
        "was refused: the Hub does not know your token. Run `hf auth login` or set HF_TOKEN.",
    ),
    403: (RepositoryError, "is not accessible with your token: ask the owner for access."),
    404: (RepositoryError, "does not exist."),
    429: (NetworkError, "was refused: too many requests. Wait a few minutes, or log in."),
}


def to_hub_error(
    error: BaseException, what: str, done: str = "fetched", model: str | None = None
) -> HubError:
    """Returns a HubError for an error of the client.

    Args:
        error: The exception that a call of the client raised.
        what: The subject of the message, such as a repository.
        done: The participle of the message: "fetched", "checked", "tagged" or "sent".
        model: The name for `hfclip download` in the message; by default `what`.
    """
    if isinstance(error, ValueError | LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__  # the client wraps the original error
    for kind, ours, answer in _ANSWERS:
        if isinstance(error, kind):
            return ours(f"{what} {answer.format(model=model or what)}{_note(error)}")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        ours, answer = _STATUSES.get(
            status, (NetworkError, f"cannot be {done}: the Hub answers {status}. Try again later.")
        )
        return ours(f"{what} {answer}{_note(error)}")
    return _unanswered(error, what, done)


def _unanswered(error: BaseException, what: str, done: str) -> HubError:
    """Returns a HubError for a request without an answer of the Hub."""
    if causes.has_illegal_token(error):
        return RepositoryError(
            f"{what} cannot be {done}: the Hub token is empty, or holds a space, a line break or "
            "another character that no token has. Set HF_TOKEN or token= to only the token."
        )
    if cause := causes.explain(error):
        return NetworkError(f"{what} cannot be {done}: {cause}")
    if isinstance(error, OSError) and error.errno is not None:
        file = error.filename or "file unknown"
        if done != "fetched":
            return HubError(f"{what} cannot be {done}: {error.strerror} ({file}).")
        return CacheError(
            f"{what} cannot be written to the cache: {error.strerror} ({file}). Free disk space or "
            "set HF_HOME to another folder."
        )
    if not causes.is_of_connection(error):
        return HubError(
            f"{what} cannot be {done}: the Hub's client failed with {type(error).__name__}. Try "
            "again; if that does not help, reinstall huggingface_hub and hf_xet."
        )
    return NetworkError(
        f"{what} cannot be {done}: the connection to {causes.peer(error)} failed "
        f"({causes.reason(error)}). Check the network{causes.proxy_note()}, then try again."
    )


def _note(error: BaseException) -> str:
    """Returns a note about the token in the environment if it may be the cause, else ""."""
    is_refused = isinstance(error, HfHubHTTPError) and error.response.status_code in {401, 403, 404}
    matters = is_refused and not isinstance(error, RevisionNotFoundError | EntryNotFoundError)
    return causes.token_note() if matters or isinstance(error, LocalTokenNotFoundError) else ""
