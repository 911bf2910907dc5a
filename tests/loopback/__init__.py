"""A Hub on the loopback interface for the real client of huggingface_hub.

It has accounts and tokens, public, private and gated repositories, commits, branches,
tags, LFS objects on a separate CDN, and faults that tests can request:

    with LoopbackHub() as hub:
        commit = hub.add_repository("timm/model.openai", {"model.safetensors": path})
        hub.fault(faults.Corrupt(), "model.safetensors")
        ...
        assert [call.status for call in hub.calls if call.server == "cdn"] == [200]

huggingface_hub reads its environment once, when it is imported. There are two ways to
connect it to this Hub:

- In a child process: `subprocess.run(command, env=hub.environment(tmp_path))`. All
  defaults of the client then refer to this Hub, and no settings or files of the developer.
- In this process: `point_client_at(hub.endpoint, tmp_path, monkeypatch)` from `in_process`
  does the same for the client that is already imported, until the test ends. Passing
  `endpoint=`, `cache_dir=` and `token=` to each call is not enough, because the client
  makes some requests without them. Its connection pool outlives the Hub, so end with
  `huggingface_hub.close_session()`.
"""

from . import faults
from .faults import Order
from .hub import LoopbackHub
from .messages import Call

__all__ = ["Call", "LoopbackHub", "Order", "faults"]
