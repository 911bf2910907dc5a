"""Lets all clients of the Hub in a process, and in its forks, share one TLS context.

Each new client loads all certificate authorities, which takes 0.04 s. The Hub of the tests has no
TLS.
"""

import functools
import os
import ssl
import sys
from collections.abc import Callable
from typing import Any

_client = sys.modules.get("httpcore2")  # what the client of huggingface_hub calls
_default: Any = getattr(_client, "default_ssl_context", None)


def share_context(replace: Callable[[object, str, object], None] = setattr) -> None:
    """Makes the client use `shared_context`, if it is imported before this module.

    Args:
        replace: What replaces an attribute of an object.
    """
    if _client is not None:
        replace(_client, "default_ssl_context", shared_context)


def shared_context(**options: Any) -> ssl.SSLContext:
    """Returns the context of httpcore2 for the environment's certificates, made once."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    return _made_once(tuple(map(os.environ.get, names)), **options)


@functools.cache
def _made_once(_: tuple[str | None, ...], **options: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = _default(**options)
    return context
