"""Fixtures: OpenAI's `clip`, hfclip's replacement for it, and weights for both."""

import functools
import importlib
import warnings
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from .world import CONFIGS, draw_weights


@pytest.fixture(scope="session")
def real() -> ModuleType:
    """Returns OpenAI's package from clip-anytorch; ignores the warning about pkg_resources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("clip")


@pytest.fixture(scope="session")
def standin() -> ModuleType:
    """Returns the module that `import clip` loads after `hfclip.compat.install()`."""
    return importlib.import_module("hfclip.compat.package")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Returns a function: "vit" or "resnet" -> path of a state dict in mixed float16."""

    @functools.cache
    def file(kind: str) -> str:
        path = tmp_path_factory.mktemp("weights") / f"{kind}.pt"
        torch.save(draw_weights(CONFIGS[kind]), path)
        return str(path)

    return file
