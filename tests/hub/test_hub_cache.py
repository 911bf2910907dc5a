"""Finding cached files without the client gives the client's own results."""

import os
from pathlib import Path

import pytest
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._validators import validate_repo_id
from hypothesis import given, settings
from hypothesis import strategies as st

from hfclip.errors import RepositoryError
from hfclip.hub.cache import cached_file, is_repository_name, repository_folder

COMMIT = "1" * 40


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "models--me--clip"
    files = (
        f"snapshots/{COMMIT}/config.json",
        f"snapshots/{COMMIT}/a/b/model.safetensors",
        f"snapshots/{COMMIT}/returned.json",
        f".no_exist/{COMMIT}/missing.json",
        f".no_exist/{COMMIT}/returned.json",
    )
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / f"snapshots/{COMMIT}/broken.json").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "a/b/model.safetensors", "a/b", "missing.json", "returned.json"),
        *("broken.json", "other.json", "config.json/below"),
    ],
)
@pytest.mark.parametrize("commit", [COMMIT, "2" * 40])
@pytest.mark.parametrize("repository", ["me/clip", "me/other"])
def test_a_file_is_found_where_the_client_finds_it(
    cache: Path, name: str, commit: str, repository: str
) -> None:
    theirs = try_to_load_from_cache(repository, name, cache_dir=cache, revision=commit)
    ours = cached_file(cache / repository_folder(repository), commit, name)
    assert ours == (Path(theirs) if isinstance(theirs, str) else None)


def test_one_file_is_found(cache: Path) -> None:
    path = cached_file(cache / "models--me--clip", COMMIT, "config.json")
    assert path == cache / f"models--me--clip/snapshots/{COMMIT}/config.json"


@pytest.mark.parametrize(
    "name", ["../config.json", "a/../../b", "/etc/passwd", "C:\\b", "a/D:b", "a\\..\\b", "\\\\h\\b"]
)
def test_a_name_that_leads_out_of_the_repository_is_refused_as_by_the_client(
    cache: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="Invalid filename"):
        try_to_load_from_cache("me/clip", name, cache_dir=cache, revision=COMMIT)
    with pytest.raises(RepositoryError, match="leads out of its folder"):
        cached_file(cache / "models--me--clip", COMMIT, name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_folder_that_cannot_be_listed_is_an_error(cache: Path) -> None:
    snapshots = cache / "models--me--clip/snapshots"
    snapshots.chmod(0)
    try:
        with pytest.raises(PermissionError):
            cached_file(cache / "models--me--clip", COMMIT, "config.json")
    finally:
        snapshots.chmod(0o700)


NAMES = st.text(alphabet="aZ9é-_. /", max_size=12) | st.sampled_from(
    ["me/clip", "clip.git", "a" * 96, "a" * 97, f"{'a' * 96}/{'b' * 96}", "a/b/c", "-a/b", "a/b."]
)


@settings(deadline=None)
@given(NAMES)
def test_a_name_is_valid_if_the_client_says_so(name: str) -> None:
    try:
        validate_repo_id(name)
        is_valid = True
    except HFValidationError:
        is_valid = False
    assert is_repository_name(name) is is_valid
    if is_valid:
        assert repository_folder(name) == repo_folder_name(repo_id=name, repo_type="model")
