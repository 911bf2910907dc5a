from collections.abc import Iterator
from pathlib import Path

import pytest
from places import Place, forget_memory


@pytest.fixture(params=["local", "memory"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """The current folder, or fsspec's file system in memory."""
    monkeypatch.chdir(tmp_path)
    yield Place(request.param, tmp_path)
    forget_memory()
