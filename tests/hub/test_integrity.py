import hashlib
import os
from pathlib import Path
from typing import Literal

import pytest
from huggingface_hub import constants

from hfclip.hub import integrity
from hfclip.hub.integrity import Digest

CONTENT = b"some weights"
SHA256 = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(CONTENT)
    return tmp_path / "weights"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Records every file that is hashed."""
    seen: list[Path] = []
    compute = integrity.compute

    def spy(path: Path, kind: Literal["sha256", "git"]) -> str:
        seen.append(path)
        return compute(path, kind)

    monkeypatch.setattr(integrity, "compute", spy)
    return seen


def test_a_small_file_has_the_id_that_git_gives_it(path: Path) -> None:
    # `printf 'some weights' | git hash-object --stdin`
    assert integrity.compute(path, "git") == "c1face7675fd0f4dce848ed0dd89570c7a650335"
    assert integrity.compute(path, "sha256") == SHA256.value


def test_the_length_of_a_hash_determines_its_kind() -> None:
    assert integrity.digest_named("a" * 64) == Digest("sha256", "a" * 64)
    assert integrity.digest_named("0" * 40) == Digest("git", "0" * 40)
    assert integrity.digest_named("g" * 40) is None
    assert integrity.digest_named("a" * 41) is None


def test_a_file_that_passed_is_not_hashed_again(path: Path, hashed: list[Path]) -> None:
    assert integrity.matches(path, SHA256)
    assert integrity.matches(path, SHA256)
    assert integrity.is_verified(path)
    assert hashed == [path]
    assert integrity.matches(path, SHA256, again=True)
    assert hashed == [path, path]


def test_a_file_that_failed_is_not_remembered(path: Path, hashed: list[Path]) -> None:
    wrong = Digest("sha256", "0" * 64)
    assert not integrity.matches(path, wrong)
    assert not integrity.matches(path, wrong)
    assert not integrity.is_verified(path)
    assert len(hashed) == 2


def test_a_verified_hash_does_not_confirm_another_hash(path: Path) -> None:
    assert integrity.matches(path, SHA256)
    assert not integrity.matches(path, Digest("sha256", "0" * 64))


def test_a_change_with_a_restored_timestamp_is_noticed(path: Path) -> None:
    assert integrity.matches(path, SHA256)
    before = path.stat()
    path.write_bytes(CONTENT.upper())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert not integrity.is_verified(path)
    assert not integrity.matches(path, SHA256)


def test_a_swapped_file_is_noticed(path: Path) -> None:
    assert integrity.matches(path, SHA256)
    other = path.with_name("other")
    other.write_bytes(CONTENT.upper())
    other.replace(path)
    assert not integrity.matches(path, SHA256)


@pytest.mark.parametrize("content", [b"", b"no json", b"[1]", b"{}", b'["sha256", "x"]'])
def test_a_damaged_record_is_ignored(
    content: bytes, path: Path, home: Path, hashed: list[Path]
) -> None:
    assert integrity.matches(path, SHA256)
    (record,) = home.rglob("verified/*")
    record.write_bytes(content)
    assert integrity.matches(path, SHA256)
    assert len(hashed) == 2


def test_a_read_only_home_folder_only_costs_time(
    path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HOME", str(path))  # a file cannot contain folders
    assert integrity.matches(path, SHA256)
    assert integrity.matches(path, SHA256)
    assert len(hashed) == 2
