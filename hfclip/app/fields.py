"""Fields of the page that take files, and answers whose errors are words. Needs gradio."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio_client.utils import is_http_url_like

from hfclip.app.limits import Limits
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
            raise _MessageError(str(error)) from None
        except gr.Error:
            raise
        except Exception:
            logger.exception("The page could not answer.")
            raise _MessageError("The page could not answer. Its log has the reason.") from None

    return answer  # type: ignore[return-value]


class _MessageError(gr.Error):
    """An error that a visitor reads. The page shows messages as HTML, so the text is escaped."""

    def __init__(self, text: str) -> None:
        super().__init__(escaped(text), duration=_SHOWN, print_exception=False)


def picture_field(**options: Any) -> gr.Image:
    """Returns a field for one picture. It gives the path of the file, which nothing has decoded.

    gradio's own field decodes the picture, without a limit of its size. A subclass would make
    gradio write a .pyi file beside this module, so the methods of the object are replaced.

    Args:
        options: The arguments of `gradio.Image`.
    """
    field = gr.Image(type="filepath", buttons=[], **options)

    def path_of(payload: Any) -> str | None:
        return None if payload is None else payload.path

    field.preprocess = path_of  # type: ignore[method-assign]
    _refuse_addresses(field)
    return field


def pictures_field(limits: Limits, **options: Any) -> gr.File:
    """Returns a field for several pictures. It gives the paths of the files.

    Args:
        limits: The limits of the page.
        options: The arguments of `gradio.File`.
    """
    field = gr.File(
        label=f"Pictures, up to {limits.pictures}",
        file_count="multiple",
        file_types=["image"],
        **options,
    )
    _refuse_addresses(field)
    return field


def _refuse_addresses(field: gr.Image | gr.File) -> None:
    """Makes a field refuse addresses of files, which gradio would fetch from other hosts."""
    move = field.async_move_resource_to_block_cache

    async def move_sent(url_or_file_path: str | Path | None) -> str | None:
        if is_http_url_like(str(url_or_file_path)):
            raise _MessageError("This page fetches no addresses. Send the file itself.")
        return await move(url_or_file_path)

    field.async_move_resource_to_block_cache = move_sent  # type: ignore[method-assign]
