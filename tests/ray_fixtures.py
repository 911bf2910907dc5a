"""A plugin of pytest: a fixture for the tests that start Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from exported import shared_by_processes
from forks import forking_python
from ray_forks import MODULES


@pytest.fixture(scope="session")
def ray_python(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Iterator[Path]:
    """Returns a command as `python` with the imports of Ray; `ray_worker` is beside it.

    Its server is a fork itself, so torch is imported once for both.
    """
    folder = shared_by_processes(tmp_path_factory.getbasetemp()) / "ray_forks"
    with forking_python(folder, *MODULES, python=str(python)) as command:
        yield command
