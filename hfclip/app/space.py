"""Serves the page of a Space. The app.py that hfclip writes into a Space calls it."""

import os
import sys
from contextlib import suppress

from hfclip.app.demo import Demo
from hfclip.app.serve import FIRST_PORT, HOST, serve


def serve_space(demo: Demo) -> None:
    """Serves a page until the process ends.

    The address comes from GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, which Spaces set. Elsewhere
    only this machine reaches the page, at port 7860.

    Args:
        demo: What the page shows.

    Raises:
        ArgumentError: The port is taken, or the host is no address of this machine.
    """
    on_hub = os.environ.get("SYSTEM") == "spaces"
    host = os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_hub else HOST)  # noqa: S104
    port = int(os.environ.get("GRADIO_SERVER_PORT") or FIRST_PORT)
    served = serve(demo, host, port)
    sys.stdout.write(f"The page of {served.name} is at {served.address}\n")
    sys.stdout.flush()
    try:
        with suppress(KeyboardInterrupt):
            served.wait()
    finally:
        served.close()
