"""Offline and read-only caches: a file that is not cached may still exist on the Hub."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import TINY_VIT, draw
from huggingface_hub import close_session, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError
from logged import Log
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

import hfclip
from hfclip.hub import fetch as hfclip_hub
from hfclip.hub.fetch import Access
from hfclip.sources.find import find

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
MEAN, STD = (0.5, 0.25, 0.75), (0.125, 0.5, 0.25)
MODEL = draw(TINY_VIT)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the same model in each layout, with another mean and std than OpenAI."""
    from hfclip.config import ClipConfig
    from hfclip.layouts.write import write_layout

    config = ClipConfig(**{**TINY_VIT.to_dict(), "image_mean": MEAN, "image_std": STD})
    layouts = {}
    for layout in ("hfclip", "open_clip", "transformers"):
        layouts[layout] = tmp_path_factory.mktemp(layout)
        write_layout(layouts[layout], config, MODEL.state_dict(), layout)
    return layouts


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        yield hub
    close_session()


def publish(hub: LoopbackHub, *folders: Path, **more: bytes) -> None:
    files: dict[str, Path | bytes] = {
        path.name: path for folder in folders for path in folder.iterdir()
    }
    hub.add_repository("me/model", files | {name.replace("__", "."): more[name] for name in more})


def cache_as_another_tool(names: Iterable[str]) -> None:
    """Requests files one by one, as transformers and open_clip do."""
    for name in names:
        with suppress(EntryNotFoundError):  # the client records this in its folder .no_exist
            hf_hub_download("me/model", name)


def cached() -> Path:
    return Path(constants.HF_HUB_CACHE) / "models--me--model"


def load_offline() -> tuple[float, ...]:
    """Loads offline, checks the weights, and returns the mean of the preprocess."""
    model, preprocess = hfclip.load("me/model", "cpu", local_files_only=True)
    assert torch.equal(model.text_projection, MODEL.text_projection)
    return tuple(preprocess.transforms[-1].mean)


# Partial caches.


def test_an_uncached_preprocess_is_not_replaced_by_openais(
    hub: LoopbackHub, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, folders["transformers"])
    cache_as_another_tool([OPEN_CLIP_CONFIG, CONFIG, WEIGHTS])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        hfclip.NetworkError, match=f"is unknown whether .* has a file {PREPROCESSOR}:"
    ) as told:
        hfclip.load("me/model", "cpu")
    commit = hub.repository("me/model").branches["main"].id
    assert f"`hfclip download me/model@{commit}`" in str(told.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    find(f"me/model@{commit}")  # as `hfclip download` does
    assert load_offline() == MEAN


@pytest.mark.parametrize(
    ("names", "unknown"),
    [
        ([CONFIG, WEIGHTS], PREPROCESSOR),
        ([CONFIG, WEIGHTS, PROCESSOR], PREPROCESSOR),
        ([CONFIG, PREPROCESSOR], WEIGHTS),
        ([WEIGHTS, PREPROCESSOR], CONFIG),
    ],
)
def test_each_missing_file_is_named(
    names: list[str], unknown: str, hub: LoopbackHub, folders: dict[str, Path]
) -> None:
    publish(hub, folders["transformers"], processor_config__json=b"{}")
    cache_as_another_tool([OPEN_CLIP_CONFIG, *names])
    with pytest.raises(hfclip.NetworkError, match=f"is unknown whether .* has a file {unknown}:"):
        load_offline()


def test_a_file_that_the_hub_reported_missing_counts_as_missing(
    hub: LoopbackHub, folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["transformers"], tmp_path / "bare")
    (tmp_path / "bare" / PREPROCESSOR).unlink()
    publish(hub, tmp_path / "bare")
    names = [OPEN_CLIP_CONFIG, CONFIG, WEIGHTS, PREPROCESSOR]
    cache_as_another_tool(names)
    with pytest.raises(hfclip.NetworkError, match=f"is unknown whether .* has a file {PROCESSOR}:"):
        load_offline()
    cache_as_another_tool([*names, PROCESSOR])
    assert load_offline() == TINY_VIT.image_mean


def test_the_second_preprocess_file_is_used_if_the_first_does_not_exist(
    hub: LoopbackHub, folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["transformers"], tmp_path / "new")
    (tmp_path / "new" / PREPROCESSOR).unlink()
    processor = {
        "image_processor": json.loads((folders["transformers"] / PREPROCESSOR).read_text())
    }
    (tmp_path / "new" / PROCESSOR).write_text(json.dumps(processor))
    publish(hub, tmp_path / "new")
    cache_as_another_tool([OPEN_CLIP_CONFIG, CONFIG, WEIGHTS, PREPROCESSOR, PROCESSOR])
    assert load_offline() == MEAN


def test_the_file_list_of_a_snapshot_download_proves_absence(
    hub: LoopbackHub, folders: dict[str, Path]
) -> None:
    publish(hub, folders["transformers"])
    snapshot_download("me/model", allow_patterns=[CONFIG, WEIGHTS])
    with pytest.raises(hfclip.NetworkError, match=f"{PREPROCESSOR} of me/model"):
        load_offline()
    snapshot_download("me/model")
    assert load_offline() == MEAN


# Layouts that a partial cache would misrepresent.


def test_open_clips_files_are_enough_by_themselves(
    hub: LoopbackHub, folders: dict[str, Path]
) -> None:
    publish(hub, folders["transformers"], folders["open_clip"])
    cache_as_another_tool([OPEN_CLIP_WEIGHTS, OPEN_CLIP_CONFIG])
    assert load_offline() == MEAN


@pytest.mark.parametrize("cached_too", [[], [OPEN_CLIP_CONFIG]])
def test_timms_image_tower_is_not_read_in_place_of_the_whole_model(
    cached_too: list[str], hub: LoopbackHub, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / CONFIG).write_text('{"architecture": "vit", "pretrained_cfg": {}}')
    (tmp_path / WEIGHTS).write_bytes(b"the image tower alone")
    publish(hub, folders["open_clip"], tmp_path)
    cache_as_another_tool([CONFIG, WEIGHTS, *cached_too])
    unknown = OPEN_CLIP_WEIGHTS if cached_too else OPEN_CLIP_CONFIG
    with pytest.raises(hfclip.NetworkError, match=f"is unknown whether .* has a file {unknown}:"):
        load_offline()


def test_pickles_in_a_partial_cache_do_not_prove_that_other_weights_are_missing(
    hub: LoopbackHub, folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["transformers"], tmp_path / "old")
    (tmp_path / "old" / WEIGHTS).rename(tmp_path / "old" / "epoch_3.bin")
    publish(hub, tmp_path / "old")
    cache_as_another_tool([CONFIG, "epoch_3.bin"])
    with pytest.raises(hfclip.NetworkError, match=f"is unknown whether .* has a file {WEIGHTS}:"):
        load_offline()
    bins = ["pytorch_model.bin", "pytorch_model.bin.index.json"]
    cache_as_another_tool([OPEN_CLIP_CONFIG, WEIGHTS, f"{WEIGHTS}.index.json", *bins])
    with pytest.raises(hfclip.RepositoryError, match=r"the files of torch\.save epoch_3\.bin"):
        load_offline()


@pytest.mark.parametrize("layout", ["hfclip", "transformers"])
def test_a_complete_model_beside_an_unknown_file_is_loaded_with_a_warning(
    layout: str, hub: LoopbackHub, folders: dict[str, Path], log: Log
) -> None:
    publish(hub, folders[layout])
    cache_as_another_tool([CONFIG, WEIGHTS, PREPROCESSOR])
    assert load_offline() == MEAN
    assert "is unknown whether " in log.text
    assert f" has a file {OPEN_CLIP_CONFIG}:" in log.text
    assert "Loading the model that config.json describes" in log.text
    log.messages.clear()
    cache_as_another_tool([OPEN_CLIP_CONFIG])
    assert load_offline() == MEAN
    assert log.text == ""


# Caches that were copied without symlinks.


def copy_without_links(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Copies a cache without symlinks, like `cp -rL`, and clears the records of its hashes."""
    copy = tmp_path / "copy"
    shutil.copytree(constants.HF_HUB_CACHE, copy)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(copy))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "another home"))
    assert not any(path.is_symlink() for path in copy.rglob("*"))
    return copy / "models--me--model"


@pytest.mark.parametrize("layout", ["hfclip", "open_clip", "transformers"])
def test_a_copied_cache_without_symlinks_is_verified_by_its_blob_names(
    layout: str,
    hub: LoopbackHub,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(hub, folders[layout])
    cache_as_another_tool([*(path.name for path in folders[layout].iterdir()), OPEN_CLIP_CONFIG])
    copy = copy_without_links(monkeypatch, tmp_path)
    assert load_offline() == MEAN
    monkeypatch.setattr("hfclip.hub.integrity.compute", None)
    assert load_offline() == MEAN  # remembered
    monkeypatch.undo()
    (file,) = copy.glob("snapshots/*/*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(hfclip.IntegrityError):
        hfclip.load("me/model", "cpu", cache_dir=copy.parent, local_files_only=True)


@pytest.mark.parametrize("damage", ["another byte", "no blobs"])
def test_a_copied_cache_that_its_blobs_do_not_confirm_is_refused(
    damage: str,
    hub: LoopbackHub,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(hub, folders["hfclip"])
    cache_as_another_tool([CONFIG, WEIGHTS, OPEN_CLIP_CONFIG])
    copy = copy_without_links(monkeypatch, tmp_path)
    if damage == "no blobs":
        shutil.rmtree(copy / "blobs")
    else:
        (config,) = copy.glob(f"snapshots/*/{CONFIG}")
        config.write_bytes(config.read_bytes().replace(b"0.5", b"0.6"))
    with pytest.raises(
        hfclip.IntegrityError, match="its blobs folder has no file named after the hash"
    ):
        load_offline()


# Caches that cannot be written or read.


def as_nobody(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs code as a user to whom file permissions apply."""
    become = "import os; os.setgid(65534); os.setuid(65534)\n" if os.getuid() == 0 else ""
    command = [sys.executable, "-c", f"{WARM_UP}{become}{code}"]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


# That user may not have permission to import the modules for a request.
WARM_UP = """
import tempfile
from hfclip.sources.find import find
from hfclip.hub import fetch as hub
from huggingface_hub import hf_hub_download
with tempfile.TemporaryDirectory() as elsewhere:
    hub.resolve("me/model", None, hub.Access(cache_dir=elsewhere))
    hf_hub_download("me/model", "config.json", cache_dir=elsewhere)
"""
FIND = """
from hfclip.sources.find import find
from hfclip.errors import CacheError
try:
    print(find("me/model").weights)
except CacheError as error:
    print(f"CacheError: {error}")
"""


@pytest.fixture
def shared(tmp_path: Path, hub: LoopbackHub, folders: dict[str, Path]) -> Iterator[Path]:
    """Returns a cache of me/model that everyone may read and nobody may write."""
    publish(hub, folders["hfclip"])
    assert find("me/model").config
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    root = Path(constants.HF_HUB_CACHE)
    paths = [root, *root.rglob("*")]
    for path in paths:
        if path.is_dir():
            path.chmod(0o555)
    yield root
    for path in paths:
        if path.is_dir():
            path.chmod(0o755)


def test_a_read_only_cache_is_used_after_a_new_commit(
    shared: Path, hub: LoopbackHub, tmp_path: Path
) -> None:
    old = hub.repository("me/model").branches["main"].id
    new = hub.push("me/model", {CONFIG: b'{"another": "commit"}'})
    result = as_nobody(FIND, hub.environment(tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(shared / "models--me--model" / "snapshots" / old / WEIGHTS)
    assert f"has a new commit {new}, but the cache at {shared} is read-only" in result.stderr
    assert f"Using the cached commit {old}" in result.stderr


def test_a_read_only_cache_without_the_model_is_reported(
    shared: Path, hub: LoopbackHub, tmp_path: Path
) -> None:
    shutil.rmtree(shared / "models--me--model")
    result = as_nobody(FIND, hub.environment(tmp_path / "home"))
    assert result.stdout.startswith("CacheError: config.json of me/model"), result.stderr
    assert "cannot be written to the cache: Permission denied" in result.stdout


@pytest.mark.parametrize("place", ["snapshots", f"snapshots/*/{WEIGHTS}"])
def test_a_cache_that_cannot_be_read_is_reported(
    place: str, shared: Path, hub: LoopbackHub, tmp_path: Path
) -> None:
    (path,) = (shared / "models--me--model").glob(place)
    mode = path.stat().st_mode
    path.chmod(0)  # the target of the symlink
    result = as_nobody(FIND, hub.environment(tmp_path / "home"))
    path.chmod(mode)
    assert result.stdout.startswith(f"CacheError: {path} cannot be read: Permission denied"), (
        result.stdout + result.stderr
    )


def test_a_forced_download_into_a_read_only_cache_fails(
    shared: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push("me/model", {CONFIG: b'{"another": "commit"}'})
    monkeypatch.setattr(os, "access", lambda *_: False)
    snapshot = hfclip_hub.resolve("me/model", None, Access(force_download=True))
    assert snapshot.commit == hub.repository("me/model").branches["main"].id
