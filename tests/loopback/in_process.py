"""Connects the client that this process has already imported to a loopback Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import share_context
from huggingface_hub import constants, hf_api


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
    share_context(patch.setattr)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setenv("NO_PROXY", "127.0.0.1")
