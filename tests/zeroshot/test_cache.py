import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from torch import Tensor

import hfclip
from hfclip.zeroshot import cache as label_cache
from hfclip.zeroshot.cache import features_key, read_features, write_features

KEY = "0" * 64


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hfclip" / "labels"


@pytest.fixture(scope="module")
def features() -> Tensor:
    return torch.randn(5, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> hfclip.CLIP:
    return hfclip.load("digits", device="cpu")[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_read_features_are_identical_to_the_written_ones(
    features: Tensor, folder: Path, dtype: torch.dtype
) -> None:
    assert read_features(KEY) is None
    write_features(KEY, features.to(dtype))
    found = read_features(KEY)
    assert found is not None
    assert found.dtype == dtype
    assert torch.equal(found, features.to(dtype))
    assert [path.name for path in folder.iterdir()] == [f"{KEY}.safetensors"]


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "a folder":
        path.unlink()
        path.mkdir()
    elif kind == "one bit":
        content[-200] ^= 1
        path.write_bytes(content)
    elif kind == "no checksum":
        from safetensors.torch import save_file

        save_file({"features": torch.zeros(5, 64)}, path)
    else:
        contents: dict[str, bytes] = {
            "empty": b"",
            "half": bytes(content[:700]),
            "no tensors": b"x" * 900,
        }
        path.write_bytes(contents[kind])


@pytest.mark.parametrize("kind", ["empty", "half", "no tensors", "one bit", "no checksum"])
def test_a_damaged_entry_is_ignored_and_written_again(
    features: Tensor, folder: Path, kind: str
) -> None:
    write_features(KEY, features)
    damage(folder / f"{KEY}.safetensors", kind)
    assert read_features(KEY) is None
    write_features(KEY, features)
    found = read_features(KEY)
    assert found is not None
    assert torch.equal(found, features)


def test_a_folder_that_cannot_be_written_or_read_is_no_error(
    features: Tensor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_features(KEY, features)
    damage(folder / f"{KEY}.safetensors", "a folder")
    write_features(KEY, features)
    assert read_features(KEY) is None
    assert [path.name for path in folder.iterdir()] == [f"{KEY}.safetensors"]
    (folder.parent / "file").touch()
    monkeypatch.setattr(constants, "HF_HOME", str(folder.parent / "file"))
    write_features(KEY, features)
    assert read_features(KEY) is None


def test_an_interrupted_write_leaves_no_entry(
    features: Tensor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_features(KEY, features)
    assert list(folder.iterdir()) == []


def test_the_least_recently_used_entries_are_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = torch.zeros(250, 1000)  # a megabyte
    monkeypatch.setattr(label_cache, "LIMIT", 3 * 2**20)
    for number in range(3):
        write_features(f"{number}", entry)
        os.utime(folder / f"{number}.safetensors", (number, number))
    assert read_features("0") is not None  # the read makes the oldest entry the newest
    write_features("3", entry)
    assert sorted(path.stem for path in folder.iterdir()) == ["0", "2", "3"]
    write_features("large", torch.zeros(1_000, 1_000))
    assert read_features("large") is None
    assert sum(path.stat().st_size for path in folder.iterdir()) <= label_cache.LIMIT


def test_files_of_killed_processes_are_removed_and_those_of_running_ones_kept(
    features: Tensor, folder: Path
) -> None:
    write_features(KEY, features)
    for name, age in (("old.part", 4_000), ("new.part", 10)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age, time.time() - age))
    write_features(KEY, features)
    assert sorted(path.name for path in folder.iterdir()) == [f"{KEY}.safetensors", "new.part"]


WRITE = """
import sys, torch
from huggingface_hub import constants
from hfclip.zeroshot.cache import read_features, write_features
constants.HF_HOME, seed = sys.argv[1:]
for number in range(20):
    write_features("shared", torch.full((300, 100), 7.0))
    write_features(f"{seed}-{number}", torch.full((300, 100), float(number)))
    found = read_features("shared")
    assert found is None or torch.equal(found, torch.full((300, 100), 7.0))
"""


def test_two_processes_may_write_at_once(folder: Path, tmp_path: Path, python: Path) -> None:
    running = [
        subprocess.Popen([python, "-c", WRITE, str(tmp_path / "home"), str(seed)])
        for seed in range(2)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    found = read_features("shared")
    assert found is not None
    assert torch.equal(found, torch.full((300, 100), 7.0))
    assert len(list(folder.iterdir())) == 41


LABELS, TEMPLATES = ("one", "two"), ("a {}", "the {}")


def test_the_key_of_a_model_does_not_depend_on_its_location(
    model: hfclip.CLIP, tmp_path: Path
) -> None:
    key = features_key(model, LABELS, TEMPLATES, "model")
    assert len(key) == 64
    model.save_pretrained(tmp_path / "elsewhere")
    again, _ = hfclip.load(tmp_path / "elsewhere", device="cpu")
    assert features_key(again, list(LABELS), list(TEMPLATES), "model") == key


def change_a_weight(model: hfclip.CLIP) -> None:
    with torch.no_grad():
        weight = model.get_parameter("transformer.resblocks.1.mlp.c_fc.weight")
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))


@pytest.mark.parametrize(
    "change",
    [
        lambda model, arguments: change_a_weight(model),
        lambda model, arguments: model.half(),
        lambda model, arguments: arguments.update(labels=("two", "one")),
        lambda model, arguments: arguments.update(labels=("one", "two", "three")),
        lambda model, arguments: arguments.update(labels=("onetwo",)),
        lambda model, arguments: arguments.update(
            labels=("one", "two", "a {}"), templates=("the",)
        ),
        lambda model, arguments: arguments.update(templates=("the {}", "a {}")),
        lambda model, arguments: arguments.update(encoder="optimized"),
    ],
    ids=["weight", "type", "order", "more", "joined", "moved", "templates", "encoder"],
)
def test_a_change_of_the_features_changes_the_key(model: hfclip.CLIP, change: Any) -> None:
    arguments: dict[str, Any] = {"labels": LABELS, "templates": TEMPLATES, "encoder": "model"}
    before = features_key(model, **arguments)
    change(model, arguments)
    assert features_key(model, **arguments) != before


def test_a_change_of_the_configuration_changes_the_key(model: hfclip.CLIP, tmp_path: Path) -> None:
    gelu = hfclip.CLIP.from_pretrained("digits", activation="gelu").eval()
    assert features_key(gelu, LABELS, TEMPLATES, "model") != features_key(
        model, LABELS, TEMPLATES, "model"
    )


def test_the_image_tower_does_not_change_the_key(model: hfclip.CLIP) -> None:
    before = features_key(model, LABELS, TEMPLATES, "model")
    with torch.no_grad():
        model.visual.conv1.weight.zero_()
    assert features_key(model, LABELS, TEMPLATES, "model") == before
