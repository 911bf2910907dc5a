import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from huggingface_hub import close_session
from loopback.faults import Status
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

from conversion import pin
from hfclip import releases
from hfclip.releases import RELEASES, Release

UNKNOWN = [name for name, release in RELEASES.items() if release.hub.revision is None]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        yield hub
    close_session()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "releases_copy.py"
    path.write_text(Path(releases.__file__).read_text())
    return path


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("releases_copy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_sha256(release: Release, content: bytes) -> Release:
    digest = hashlib.sha256(content).hexdigest()
    return replace(release, hub=replace(release.hub, sha256=digest))


def test_the_script_would_write_the_same_table() -> None:
    assert pin.render(RELEASES) in Path(releases.__file__).read_text()


def test_missing_values_are_read_from_the_hub_and_written(
    hub: LoopbackHub, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = {}
    for name, release in RELEASES.items():
        if None in (release.hub.revision, release.hub.size, release.hub.sha256):
            content = f"weights of {name}".encode()
            commits[name] = hub.add_repository(release.hub.repo_id, {release.hub.file: content})
            if release.hub.sha256:  # its hash is known, so the replacement file must match it
                monkeypatch.setitem(RELEASES, name, with_sha256(release, content))
    # ViT-L/14 is pinned without a size. Its commit must exist on the Hub for the request.
    large = RELEASES["ViT-L/14"].hub
    repository = hub.repository(large.repo_id)
    repository.tags[str(large.revision)] = repository.branches["main"]
    result = CliRunner().invoke(pin.main, ["--file", str(table)])
    assert result.exit_code == 0, result.output
    filled = imported(table).RELEASES
    for name in UNKNOWN:
        content = f"weights of {name}".encode()
        file = filled[name].hub
        assert file.revision == commits[name]
        assert file.size == len(content)
        assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert filled["ViT-L/14"].hub.revision == large.revision
    assert filled["ViT-L/14"].hub.size == len(b"weights of ViT-L/14")
    assert repr(filled["ViT-B/32"]) == repr(RELEASES["ViT-B/32"])


def test_a_repository_without_the_file_changes_nothing(hub: LoopbackHub, table: Path) -> None:
    before = table.read_bytes()
    for release in RELEASES.values():
        hub.add_repository(release.hub.repo_id, {"README.md": b"empty"})
        if release.hub.revision is not None:
            repository = hub.repository(release.hub.repo_id)
            repository.tags[release.hub.revision] = repository.branches["main"]
    result = CliRunner().invoke(pin.main, ["--file", str(table)])
    assert result.exit_code == 1
    assert "has no open_clip_model.safetensors with a sha256" in result.output
    assert table.read_bytes() == before
    assert [path.name for path in table.parent.iterdir() if path.suffix == ".part"] == []


def test_a_commit_with_another_file_than_the_known_one_is_not_pinned(
    hub: LoopbackHub, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, release = table.read_bytes(), RELEASES["RN50x4"]
    monkeypatch.setattr(pin, "RELEASES", {"RN50x4": release})
    hub.add_repository(release.hub.repo_id, {release.hub.file: b"other weights"})
    result = CliRunner().invoke(pin.main, ["--file", str(table)])
    assert result.exit_code == 1
    assert f"releases.py expects {release.hub.sha256}" in result.output
    assert hashlib.sha256(b"other weights").hexdigest() in result.output
    assert table.read_bytes() == before


def test_an_unavailable_hub_is_reported(hub: LoopbackHub, table: Path) -> None:
    hub.fault(Status(503), "/api/models/*", times=None)
    result = CliRunner().invoke(pin.main, ["--file", str(table)])
    assert result.exit_code == 1
    assert "timm/resnet101_clip.openai cannot be fetched: the Hub answers 503" in result.output
    assert "Traceback" not in result.output
