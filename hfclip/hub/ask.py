"""Makes a request to the Hub and raises a failure as an error of hfclip."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError

from hfclip.errors import HfclipError, HubError, NetworkError, PublishError
from hfclip.hub.errors import may_pass, to_hub_error
from hfclip.hub.patience import bounded

_T = TypeVar("_T")


def ask(
    request: Callable[[], _T],
    what: str,
    done: str = "fetched",
    *,
    model: str | None = None,
    bounds: bool = True,
) -> _T:
    """Makes a request and repeats it once after a broken connection.

    Args:
        request: The request.
        what: The subject of the message, such as a repository.
        done: The participle of the message: "fetched", "checked", "tagged" or "sent".
        model: The name of the model for a command in the message.
        bounds: Whether the waiting time is limited, see `patience`. An upload has no limit.

    Raises:
        PublishError: The repository has a new commit since it was looked up.
        HubError: The request failed. The message names the cause.
    """
    try:
        with bounded() if bounds else nullcontext():
            return _repeated(request)
    except HubError as error:
        raise NetworkError(f"{what} cannot be {done}: {error}. Try again later.") from None
    except HfclipError:
        raise
    except Exception as error:  # noqa: BLE001
        if isinstance(error, HfHubHTTPError) and error.response.status_code == 412:
            raise PublishError(
                f"{what} has a new commit that was pushed in the meantime; nothing was changed. "
                "Check that commit, then try again."
            ) from None
        # `from None`: the original error may show a token, and adds nothing to this message.
        raise to_hub_error(error, what, done, model=model) from None


def _repeated(request: Callable[[], _T]) -> _T:
    try:
        return request()
    except Exception as error:  # the client raises many types
        if not may_pass(error):
            raise
        return request()
