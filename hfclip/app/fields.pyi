"""Fields of the page that take files, and answers whose errors are words. Needs gradio."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio_client.utils import is_http_url_like

from hfclip.app.markup import escaped
from hfclip.errors import HfclipError

logger = logging.getLogger(__name__)

_Function = TypeVar("_Function", bound=Callable[..., Any])

# All answers share one queue: the model computes one at a time.
QUEUE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
# Seconds that a message stays on the page.
_SHOWN = 20.0

def in_words(function: _Function) -> _Function:
    """Wraps an answer so that its errors are shown as sentences, without a stack trace."""

    @functools.wraps(function)
    def answer(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except HfclipError as error:
            raise _message(str(error)) from None
        except gr.Error:
            raise
        except Exception:
            logger.exception("The page could not answer.")
            raise _message("The page could not answer. Its log has the reason.") from None

    return answer  # type: ignore[return-value]

def _message(text: str) -> gr.Error:
    """Returns an error for the page, which shows messages as HTML."""
    return gr.Error(escaped(text), duration=_SHOWN, print_exception=False)

from gradio.events import Dependency

class Picture(gr.Image):
    """A field for one picture. It gives the path of the file, which nothing has decoded yet."""

    is_template = True  # of gradio: the page shows a gr.Image

    def preprocess(self, payload: Any) -> str | None:
        """Returns the path of the picture, or None."""
        return None if payload is None else payload.path

    async def async_move_resource_to_block_cache(
        self, url_or_file_path: str | Path | None
    ) -> str | None:
        """Returns the path of a file that was sent.

        Raises:
            gradio.Error: It is an address, which gradio would fetch.
        """
        _refuse_address(url_or_file_path)
        return await super().async_move_resource_to_block_cache(url_or_file_path)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Pictures(gr.File):
    """A field for several pictures. It gives the paths of the files."""

    is_template = True

    async def async_move_resource_to_block_cache(
        self, url_or_file_path: str | Path | None
    ) -> str | None:
        """Returns the path of a file that was sent.

        Raises:
            gradio.Error: It is an address, which gradio would fetch.
        """
        _refuse_address(url_or_file_path)
        return await super().async_move_resource_to_block_cache(url_or_file_path)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

def _refuse_address(path: str | Path | None) -> None:
    if is_http_url_like(str(path)):
        raise _message("This page fetches no addresses. Send the file itself.")
