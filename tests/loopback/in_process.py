"""Connects the client that this process has already imported to a loopback Hub."""

from __future__ import annotations

import functools
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, hf_api

_default: Any = getattr(sys.modules.get("httpcore2"), "default_ssl_context", None)


def point_client_at(endpoint: str, home: Path, patch: pytest.MonkeyPatch) -> None:
    """Does for an imported client what `LoopbackHub.environment` does for a new process.

    huggingface_hub sets these constants at import. Passing `endpoint=` is not enough: some
    requests use `constants.ENDPOINT`, and `endpoint=` has an effect only where the URL
    template begins with that constant.
    """
    cache = home / ".cache" / "huggingface"
    settings = {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(cache),
        "HF_HUB_CACHE": str(cache / "hub"),
        "HF_TOKEN_PATH": str(cache / "token"),
        "AGENT_HARNESSES_PATH": str(cache / ".agent_harnesses.json"),
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }
    for name, value in settings.items():
        patch.setattr(constants, name, value)
    patch.setattr(hf_api.api, "endpoint", endpoint)
    # What the client of huggingface_hub calls.
    if (client := sys.modules.get("httpcore2")) is not None:
        patch.setattr(client, "default_ssl_context", _ssl_context)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setenv("NO_PROXY", "127.0.0.1")


def _ssl_context(**options: Any) -> ssl.SSLContext:
    """Returns the context of httpcore2 for the environment's certificates, made once.

    Each new client loads all certificate authorities, which takes 0.04 s. The Hub has no TLS.
    """
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    return _made_once(tuple(map(os.environ.get, names)), **options)


@functools.cache
def _made_once(_: tuple[str | None, ...], **options: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = _default(**options)
    return context
