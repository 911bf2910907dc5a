"""A plugin of pytest: makes the test processes of `-n` forks of one that has imported packages.

So packages are imported once, and compiled once in a fresh environment.
"""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import execnet
import forks
import pytest

# A shell starts a job in the background with SIGINT ignored, and what the job starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The folder of the server of programs, for the test processes.
VARIABLE = "HFCLIP_TESTS_FORKS"
# What test modules import beyond `forks.SLOW`, and takes long.
MODULES = ("open_clip", "transformers", "ray", "playwright.sync_api", "faiss")


class Workers:
    """Two servers of forks: one for the programs of tests, and a fork of it for test processes.

    The first imports its packages while pytest starts.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hfclip-tests-"))
        self._programs, self._workers = Path(folder, "programs"), Path(folder, "workers")
        self._server = self._started(self._programs)
        os.environ[VARIABLE] = str(self._programs)

    def _started(
        self, folder: Path, *modules: str, python: str = sys.executable
    ) -> subprocess.Popen[bytes]:
        server, user = forks.start(folder, modules, python)
        self._stack.callback(server.wait, 30)
        self._stack.callback(os.close, user)
        return server

    def pytest_xdist_setupnodes(self, specs: list[execnet.XSpec]) -> None:
        forks.wait_until_ready(self._server)
        workers = self._started(self._workers, *MODULES, python=str(self._programs / "python"))
        forks.wait_until_ready(workers)
        command = self._workers / "python"
        specs[:] = [execnet.XSpec(f"{spec}//id={spec.id}//python={command}") for spec in specs]

    def pytest_unconfigure(self) -> None:
        self._stack.close()


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:  # a test process loads the same plugins
        early_config.pluginmanager.register(Workers())
