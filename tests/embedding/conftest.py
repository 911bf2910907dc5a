"""Fixtures: the bundled model loaded once, and the programs of Ray as forks."""

import functools
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from exported import shared_by_processes
from forks import forking_python
from ray_forks import MODULES

from hfclip.embedding import run
from hfclip.embedding.options import Loaded, Options, load_encoder


@functools.cache
def digits(options: Options) -> Loaded:
    """Returns the bundled model, which runs do not change."""
    return load_encoder(options)


@pytest.fixture(scope="module")
def digits_once() -> Iterator[None]:
    """Loads and optimizes the bundled model once for all runs of a module with equal options."""

    def load(options: Options) -> Loaded:
        return digits(options) if options.model == "digits" else load_encoder(options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "load_encoder", load)
        patch.setattr(Loaded, "optimized", functools.cache(Loaded.optimized))
        yield


@pytest.fixture(scope="session")
def ray_python(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Iterator[Path]:
    """Returns a command as `python` that has imported Ray and hfclip; `ray_worker` is beside it.

    Its server is a fork itself, so torch is imported once for both.
    """
    folder = shared_by_processes(tmp_path_factory.getbasetemp()) / "ray_forks"
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "executable", str(python))  # it starts the server
            command = stack.enter_context(forking_python(folder, *MODULES))
        yield command
