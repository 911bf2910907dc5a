"""Fixtures: a collection's place on object storage, and in fsspec's file system in memory."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_storage import S3Server, new_bucket, served
from places import forget_memory

_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with served() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    yield s3_server
    s3_server.gate = None


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """Returns the URL of a bucket of its own."""
    return new_bucket(f"bucket-{next(_numbers)}")


@pytest.fixture
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the Hub's cache folder of the test, which holds copies of plans and matrices."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def memory(hub_home: Path) -> Iterator[str]:
    """Returns the URL of a place in memory."""
    yield "memory://place/out"
    forget_memory()


@pytest.fixture(params=["memory", "s3"])
def remote(request: pytest.FixtureRequest, hub_home: Path) -> str:
    """Returns the URL of a place in memory, and of one on object storage."""
    if request.param == "memory":
        return str(request.getfixturevalue("memory"))
    return f"{request.getfixturevalue('bucket')}/deep/out"
