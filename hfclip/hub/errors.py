"""What the Hub's client raises, in hfclip's words: what happened, and what to do about it."""

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


class MissingRepositoryError(RepositoryError):
    """The Hub shows no repository of that name; the name may be misspelt."""


class NotCachedError(NetworkError):
    """The cache has nothing of that name and no request was made; the name may be misspelt."""


def may_pass(error: Exception) -> bool:
    """Whether asking once more makes sense; the client has done so only for some of these."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    cut_short = type(error) is OSError and error.errno is None  # fewer bytes than announced
    return cut_short or type(error).__name__ in _BROKEN_CONNECTIONS


# The classes are of the library under the client, and have no base that the client shows.
_BROKEN_CONNECTIONS = frozenset(
    {"ReadError", "WriteError", "RemoteProtocolError", "ReadTimeout", "ConnectTimeout"}
)


# What the client raises, what we raise, and what to do. The first kind that fits is taken.
_ANSWERS: tuple[tuple[type[Exception], type[HubError], str], ...] = (
    (
        GatedRepoError,
        RepositoryError,
        "is gated: ask for access on its page, then log in with `hf auth login` or set HF_TOKEN.",
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
        "does not exist or is private: check the name, then `hf auth login` or set HF_TOKEN.",
    ),
    (HFValidationError, RepositoryError, "is no name that a repository can have."),
    (
        OfflineModeIsEnabled,
        NetworkError,
        "is not in the cache, and HF_HUB_OFFLINE rules requests out. Load it once without.",
    ),
    (
        LocalTokenNotFoundError,
        RepositoryError,
        "was asked for with token=True, and no token is stored: `hf auth login` or HF_TOKEN.",
    ),
)
_STATUSES: dict[int, tuple[type[HubError], str]] = {
    401: (
        RepositoryError,
        "was refused, for the Hub does not know your token: `hf auth login`, or set HF_TOKEN.",
    ),
    403: (RepositoryError, "is not open to your token: ask its owner for access."),
    404: (RepositoryError, "does not exist."),
    429: (NetworkError, "was refused: too many requests. Wait a little, or log in."),
}


def in_our_words(
    error: BaseException, what: str, done: str = "fetched", model: str | None = None
) -> HubError:
    """Translates what the client raised.

    Args:
        error: Whatever came out of a call of the client.
        what: What was asked for, to begin the message with.
        done: The participle of what failed: "fetched" or "sent".
        model: The name that `hfclip download` takes; by default `what`.
    """
    if isinstance(error, ValueError | LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__  # the client wraps what went wrong
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
    """Translates a failure before or without an answer of the Hub."""
    if causes.has_illegal_token(error):
        return RepositoryError(
            f"{what} cannot be {done}: the Hub token is empty, or holds a space, a line break or "
            "another character that no token has. Set HF_TOKEN or token= to the token alone."
        )
    if cause := causes.explain(error):
        return NetworkError(f"{what} cannot be {done}: {cause}")
    if isinstance(error, OSError) and error.errno is not None:
        file = error.filename or "no file named"
        if done != "fetched":
            return HubError(f"{what} cannot be {done}: {error.strerror} ({file}).")
        return CacheError(
            f"{what} cannot be put into the cache: {error.strerror} ({file}). Free the disk or set "
            "HF_HOME elsewhere."
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
    """Returns what is wrong with the token of the environment, where the token may matter."""
    is_refused = isinstance(error, HfHubHTTPError) and error.response.status_code in {401, 403, 404}
    matters = is_refused and not isinstance(error, RevisionNotFoundError | EntryNotFoundError)
    return causes.token_note() if matters or isinstance(error, LocalTokenNotFoundError) else ""
