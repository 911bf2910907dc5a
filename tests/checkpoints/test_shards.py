"""Weights in shards: read one after the other, strictly, or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_VIT, draw
from safetensors.torch import load_file
from saved_weights import save, save_shards
from torch import Tensor

import hfclip
from hfclip.checkpoints import assembly
from hfclip.checkpoints.read import read_checkpoint
from hfclip.layouts.files import CONFIG_FILE, Source
from hfclip.layouts.transformers import to_transformers
from hfclip.layouts.write import write_layout
from hfclip.sources.find import find

MODEL = draw(TINY_VIT)
KINDS = ["model.safetensors", "pytorch_model.bin"]


def sharded(folder: Path, name: str, layout: str = "transformers") -> Path:
    """Writes a folder whose weights are in three shards, and returns it."""
    write_layout(folder, TINY_VIT, MODEL.state_dict(), layout)
    (folder / "model.safetensors").unlink()
    weights = MODEL.state_dict()
    save_shards(to_transformers(weights) if layout == "transformers" else weights, folder, name)
    return folder


def assert_whole(model: torch.nn.Module) -> None:
    found, expected = model.state_dict(), MODEL.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("layout", ["hfclip", "transformers"])
@pytest.mark.parametrize("name", KINDS)
def test_shards_give_the_whole_model(name: str, layout: str, tmp_path: Path) -> None:
    sharded(tmp_path, name, layout)
    assert_whole(hfclip.load(tmp_path, "cpu")[0])
    assert_whole(hfclip.CLIP.from_pretrained(tmp_path))
    index = tmp_path / f"{name}.index.json"
    assert_whole(hfclip.load(index, "cpu")[0])
    kind = {"model.safetensors": "safetensors file", "pytorch_model.bin": "PyTorch state dict"}
    facts = hfclip.inspect(index)
    assert facts.format == f"{kind[name]} in 3 shards"
    assert facts.file == index
    assert len(facts.shards) == 3
    assert facts.bytes == sum((tmp_path / shard).stat().st_size for shard in facts.shards)


def test_an_index_loads_with_the_configuration_of_a_base(tmp_path: Path) -> None:
    sharded(tmp_path, "model.safetensors", "hfclip")
    MODEL.save_pretrained(tmp_path / "base")
    (tmp_path / "config.json").unlink()
    index = tmp_path / "model.safetensors.index.json"
    assert_whole(hfclip.load(index, "cpu", base=tmp_path / "base")[0])
    assert hfclip.inspect(index).assumed is not None


def shard(folder: Path, number: int, name: str) -> Path:
    stem, _, suffix = name.rpartition(".")
    return folder / f"{stem}-0000{number}-of-00003.{suffix}"


def content(path: Path) -> dict[str, Tensor]:
    is_safe = path.suffix == ".safetensors"
    return load_file(path) if is_safe else torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", KINDS)
def test_a_tensor_in_another_shard_than_listed_is_refused(name: str, tmp_path: Path) -> None:
    sharded(tmp_path, name)
    first, second = (shard(tmp_path, number, name) for number in (1, 2))
    tensors = content(first)
    moved = next(iter(tensors))
    save(content(second) | {moved: tensors[moved]}, second)
    with pytest.raises(hfclip.WeightsMismatchError, match=f"missing nothing; unexpected {moved}"):
        hfclip.load(tmp_path, "cpu")
    del tensors[moved]
    save(tensors, first)
    with pytest.raises(hfclip.WeightsMismatchError, match=f"missing {moved}") as refusal:
        hfclip.load(tmp_path, "cpu")
    assert str(first) in str(refusal.value)
    assert "get all of them again" in str(refusal.value)


@pytest.mark.parametrize("name", KINDS)
def test_every_missing_shard_is_named(name: str, tmp_path: Path) -> None:
    sharded(tmp_path, name)
    missing = [shard(tmp_path, number, name) for number in (1, 3)]
    for path in missing:
        path.unlink()
    named = ", ".join(path.name for path in missing)
    with pytest.raises(hfclip.RepositoryError, match=f"lacks 2 of the 3 shards .*: {named}"):
        hfclip.load(tmp_path, "cpu")


def test_an_index_without_one_of_the_models_tensors_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path, "model.safetensors", "hfclip")
    index = tmp_path / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    path = tmp_path / values["weight_map"].pop("visual.proj")
    index.write_text(json.dumps(values))
    tensors = content(path)
    del tensors["visual.proj"]
    save(tensors, path)
    with pytest.raises(hfclip.WeightsMismatchError, match=r"missing visual\.proj"):
        hfclip.load(tmp_path, "cpu")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "a page"])
def test_a_shard_that_fails_after_others_were_read_gives_no_model(
    damage: str, name: str, tmp_path: Path
) -> None:
    source = find(sharded(tmp_path, name))
    last = shard(tmp_path, 3, name)
    whole = last.read_bytes()
    if damage == "gone":
        last.unlink()
    else:
        spoiled = {"empty": b"", "cut": whole[: len(whole) // 2], "a page": b"<html>" * 9}
        last.write_bytes(spoiled[damage])
    with pytest.raises(hfclip.CheckpointError) as refusal:
        read_checkpoint(source)
    assert str(last) in str(refusal.value)


@pytest.mark.parametrize("name", KINDS)
def test_an_error_of_the_disk_in_the_last_shard_gives_no_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find(sharded(tmp_path, name))
    original = Path.open
    opened = []

    def failing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path in source.weight_files:
            opened.append(path)
        if path == source.shards[-1].path:
            raise OSError(5, "Input/output error")
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(hfclip.CheckpointError, match="Input/output error"):
        read_checkpoint(source)
    assert set(opened) == set(source.weight_files)


@pytest.mark.parametrize("at", [0, 2])
def test_shards_that_another_program_replaces_meanwhile_are_not_mixed(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find(sharded(tmp_path, "model.safetensors"))
    detect = assembly.detect_kind

    def replacing(path: Path) -> str:
        if path == source.shards[1].path:
            other = source.shards[at].path
            tensors = {name: tensor + 1 for name, tensor in content(other).items()}
            save(tensors, other.with_suffix(".new")).replace(other)
        return detect(path)

    monkeypatch.setattr(assembly, "detect_kind", replacing)
    with pytest.raises(hfclip.CheckpointError, match="another program writes to it"):
        read_checkpoint(source)


@pytest.mark.parametrize("mapped", [True, False])
def test_shards_are_mapped_only_if_their_source_allows_it(mapped: bool, tmp_path: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list its mapped files")
    source = find(sharded(tmp_path, "model.safetensors", "hfclip"))
    source = Source(source.weights, source.config, "a test", mapped=mapped, shards=source.shards)
    tensors = read_checkpoint(source).tensors
    assert len(tensors) == len(MODEL.state_dict())
    mapped_files = {line.split()[-1] for line in maps.read_text().splitlines()}
    assert all((str(path) in mapped_files) is mapped for path in source.weight_files)


# Reads two sources and prints the peak memory that the second took, in bytes. The first is small:
# it makes the program, a fork, map the libraries that reading takes.
PEAK = """
import resource, sys, torch
from hfclip.checkpoints.read import read_checkpoint
from hfclip.sources.find import find
read_checkpoint(find(sys.argv[1]))
source = find(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
checkpoint = read_checkpoint(source)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("name", KINDS)
def test_reading_shards_takes_the_memory_of_the_model_and_no_more(
    name: str, tmp_path: Path, python: Path
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak is in other units elsewhere")
    config = hfclip.ClipConfig(64, 32, 2, 64, 16, 16, 600_000, 64, 1, 2)
    table = torch.ones(600_000, 64)  # 154 of 155 MB
    weights = MODEL.state_dict() | {"token_embedding.weight": table}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config.to_dict()))
    save_shards(weights, tmp_path, name)
    (tmp_path / "small").mkdir()
    child = subprocess.run(
        [python, "-c", PEAK, str(sharded(tmp_path / "small", name)), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(child.stdout) < 1.2 * table.nbytes
