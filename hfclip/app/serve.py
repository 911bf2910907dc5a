"""Serves a page on this machine or a network, within its limits."""

import os
import tempfile
import threading
import warnings
from typing import Any

from PIL import Image

from hfclip.app.demo import Demo
from hfclip.app.guard import LOOPBACK, Guard
from hfclip.app.quick_import import import_gradio
from hfclip.errors import ArgumentError, DataError

HOST = "127.0.0.1"
"""The address of a page that only this machine reaches."""
FIRST_PORT = 7860
"""The port of a page, or the first of them that is free."""

_TRIED = 100


class Served:
    """A page that is being served.

    Attributes:
        name: The name of the model.
        address: The address of the page, such as "http://127.0.0.1:7860/".
    """

    def __init__(
        self, demo: Demo, page: Any, address: str, folder: "tempfile.TemporaryDirectory[str]"
    ) -> None:
        self.name = demo.name
        self._demo = demo
        self._page = page
        self._folder = folder
        self.address = address

    def wait(self) -> None:
        """Loads the model while the page is already shown, then waits until Ctrl-C.

        Raises:
            HfclipError: The model cannot be loaded.
        """
        _ = self._demo.loaded
        threading.Event().wait()

    def close(self) -> None:
        """Ends the server and removes the files that visitors sent."""
        self._page.close(verbose=False)
        self._folder.cleanup()


def serve(demo: Demo, host: str = HOST, port: int | None = None) -> Served:
    """Serves the page of a model in threads of their own.

    Args:
        demo: What the page shows.
        host: The address to listen at. "0.0.0.0" makes the page reachable from other machines.
        port: The port. None takes the first free one from 7860.

    Raises:
        DataError: gradio is not installed.
        ArgumentError: The port is taken, or the host is no address of this machine.
    """
    check_gradio()
    folder = tempfile.TemporaryDirectory(prefix="hfclip-app-")
    # gradio reads both when it is imported or when components are built.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder.name
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the page has its own limit
    import_gradio()
    from starlette.middleware import Middleware  # noqa: PLC0415

    from hfclip.app.page import build, look  # noqa: PLC0415

    hosts = LOOPBACK if host in LOOPBACK else ()
    page = build(demo)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            inbrowser=False,
            show_error=False,
            max_file_size=demo.limits.upload_bytes,
            enable_monitoring=False,
            ssr_mode=False,
            run_history=False,
            mcp_server=False,
            pwa=False,
            app_kwargs={"middleware": [Middleware(Guard, demo=demo, hosts=hosts)]},
            **look(),
        )
    except OSError as error:
        folder.cleanup()
        raise ArgumentError(
            f"The page cannot listen at {host}, port {port or FIRST_PORT} ({error}). Choose "
            "another with --port."
        ) from error
    return Served(demo, page, address, folder)


def check_gradio() -> None:
    """Checks that gradio is installed.

    Raises:
        DataError: It is not.
    """
    from importlib.util import find_spec  # noqa: PLC0415

    if find_spec("gradio") is None:
        raise DataError("The page needs gradio: pip install 'hfclip[app]'")
