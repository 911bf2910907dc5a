"""The packages that hfclip is compared with, imported once and without their warnings."""

import importlib
import warnings
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def clip() -> ModuleType:
    """OpenAI's package, as clip-anytorch ships it; its import of pkg_resources warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("clip")
