"""A plugin of pytest: runs of the bundled model load it once."""

import functools
from collections.abc import Iterator

import pytest

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
