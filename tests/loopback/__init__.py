"""A Hub on the loopback that the real client of huggingface_hub talks to.

It has accounts and tokens, public, private and gated repositories, commits, branches,
tags, LFS objects on a CDN of their own, and faults to order:

    with LoopbackHub() as hub:
        commit = hub.add_repository("timm/model.openai", {"model.safetensors": path})
        hub.fault(faults.Corrupt(), "model.safetensors")
        ...
        assert [call.status for call in hub.calls if call.server == "cdn"] == [200]

huggingface_hub reads its environment once, when it is imported, so there are two ways to
let it talk to this Hub:

- In a child process: `subprocess.run(command, env=hub.environment(tmp_path))`. All of the
  client's defaults then point here, and nothing of the developer's own is in reach.
- In this process: `point_client_at(hub.endpoint, tmp_path, monkeypatch)` from `in_process`
  does the same to the client that is already imported, until the test ends. Passing
  `endpoint=`, `cache_dir=` and `token=` to each call is not quite enough: some requests
  are the client's own. Its pool of connections outlives the Hub, so end with
  `huggingface_hub.close_session()`.
"""

from . import faults
from .faults import Order
from .hub import LoopbackHub
from .messages import Call

__all__ = ["Call", "LoopbackHub", "Order", "faults"]
