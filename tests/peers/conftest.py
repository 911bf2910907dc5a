"""Fixtures: the packages that hfclip is compared with, imported without their warnings."""

import importlib
import warnings
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def clip() -> ModuleType:
    """Returns OpenAI's package from clip-anytorch; ignores the warning about pkg_resources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("clip")
