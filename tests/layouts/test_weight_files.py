"""The names of weight files, and indexes of shards that nobody should trust."""

import json
from pathlib import Path

import pytest

from hfclip.errors import ArgumentError, CheckpointError
from hfclip.layouts.weight_files import (
    choices,
    config_of,
    existing_choices,
    is_index,
    read_index,
    variants_in,
)

OPEN_CLIP_CONFIG, CONFIG = "open_clip_config.json", "config.json"


def test_safetensors_come_first_and_open_clips_files_before_the_others() -> None:
    assert [tuple(choice) for choice in choices()] == [
        (OPEN_CLIP_CONFIG, "open_clip_model.safetensors"),
        (OPEN_CLIP_CONFIG, "open_clip_model.safetensors.index.json"),
        (CONFIG, "model.safetensors"),
        (CONFIG, "model.safetensors.index.json"),
        (OPEN_CLIP_CONFIG, "open_clip_pytorch_model.bin"),
        (OPEN_CLIP_CONFIG, "open_clip_pytorch_model.bin.index.json"),
        (CONFIG, "pytorch_model.bin"),
        (CONFIG, "pytorch_model.bin.index.json"),
    ]


def test_a_variant_is_named_as_transformers_names_it() -> None:
    names = [choice.weights for choice in choices("fp16") if choice.config == CONFIG]
    assert names == [
        "model.fp16.safetensors",
        "model.safetensors.index.fp16.json",
        "pytorch_model.fp16.bin",
        "pytorch_model.bin.index.fp16.json",
    ]


@pytest.mark.parametrize("variant", ["", "a/b", "..", "fp16.safetensors", "a b", "x" * 41, "\0"])
def test_a_variant_that_is_not_a_part_of_a_name_is_refused(variant: str) -> None:
    with pytest.raises(ArgumentError, match="expected a part of a file name"):
        choices(variant)


def test_the_files_of_a_variant_are_never_those_of_the_default() -> None:
    names = {CONFIG, "model.fp16.safetensors", "model.safetensors.index.bf16.json"}
    assert existing_choices(names) == []
    assert [choice.weights for choice in existing_choices(names, "bf16")] == [
        "model.safetensors.index.bf16.json"
    ]
    shards = {"model.fp16-00001-of-00002.safetensors", "model-00001-of-00002.safetensors"}
    assert variants_in({*names, *shards, "model.safetensors", "notes.v1.json"}) == {
        "fp16": "model.fp16.safetensors",
        "bf16": "model.safetensors.index.bf16.json",
    }


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("pytorch_model.bin", CONFIG),
        ("model.fp16.safetensors", CONFIG),
        ("model-00001-of-00002.safetensors", CONFIG),
        ("model.fp16-00001-of-00002.safetensors", CONFIG),
        ("pytorch_model.bin.index.fp16.json", CONFIG),
        ("open_clip_pytorch_model.bin", OPEN_CLIP_CONFIG),
        ("open_clip_model.safetensors.index.json", OPEN_CLIP_CONFIG),
        ("my_model.safetensors", None),
        ("model.pt", None),
        ("model.bin", None),
    ],
)
def test_a_standard_weight_file_belongs_to_one_configuration(name: str, config: str) -> None:
    assert config_of(name) == config


def test_only_an_index_is_an_index() -> None:
    assert is_index("model.safetensors.index.json")
    assert is_index("pytorch_model.bin.index.fp16.json")
    assert not is_index("model.safetensors")
    assert not is_index("index.json")


def written(folder: Path, content: object, name: str = "model.safetensors.index.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def placed(**tensors: object) -> dict[str, object]:
    return {"metadata": {"total_size": -1}, "weight_map": tensors}


def test_an_index_lists_the_tensors_of_each_shard(tmp_path: Path) -> None:
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    path = written(tmp_path, placed(a=second, b=first, c=second))
    assert read_index(path) == {first: {"b"}, second: {"a", "c"}}
    assert list(read_index(path)) == [first, second]


@pytest.mark.parametrize(
    "shard",
    [
        "../other/model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "sub\\model.safetensors",
        "C:model.safetensors",
        ".hidden.safetensors",
        "https://example.com/model.safetensors",
        "model.safetensors\0",
        "a\n.safetensors",
        "mödel.safetensors",
        "model.bin",
        "model.safetensors.exe",
        "",
        ".safetensors",
        "x" * 300 + ".safetensors",
        None,
        7,
        ["model.safetensors"],
    ],
)
def test_an_index_may_name_only_plain_files_of_its_kind(shard: object, tmp_path: Path) -> None:
    path = written(tmp_path, placed(a="model.safetensors", b=shard))
    with pytest.raises(CheckpointError, match=r"the plain name of a \.safetensors file"):
        read_index(path)


def test_the_index_of_bin_files_names_bin_files(tmp_path: Path) -> None:
    name = "pytorch_model.bin.index.json"
    assert read_index(written(tmp_path, placed(a="x.bin"), name)) == {"x.bin": {"a"}}
    with pytest.raises(CheckpointError, match=r"the plain name of a \.bin file"):
        read_index(written(tmp_path, placed(a="x.safetensors"), name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "not a JSON object"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "more than once"),
        ({}, "it has no weight_map"),
        ({"weight_map": {}}, "it has no weight_map"),
        ({"weight_map": ["a"]}, "it has no weight_map"),
        (placed(**{"a" * 256: "x.safetensors"}), "too long or not printable"),
        (placed(**{"\x1b[2J": "x.safetensors"}), "too long or not printable"),
        (placed(**{f"t{n}": f"{n}.safetensors" for n in range(1001)}), "1001 shards"),
        (placed(**{f"t{n}" * 40: "x.safetensors" for n in range(9000)}), "larger than"),
    ],
)
def test_an_index_that_is_malformed_or_huge_is_refused(
    content: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message) as refusal:
        read_index(written(tmp_path, content))
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "numbers",
    [["1-of-3", "2-of-3"], ["1-of-2", "3-of-2"], ["0-of-2", "1-of-2"], ["1-of-999999"]],
)
def test_a_missing_number_of_a_shard_is_noticed(numbers: list[str], tmp_path: Path) -> None:
    tensors = {f"t{at}": f"model-{number}.safetensors" for at, number in enumerate(numbers)}
    with pytest.raises(CheckpointError, match="with the numbers from 1"):
        read_index(written(tmp_path, placed(**tensors)))


def test_an_index_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read_index(tmp_path / "model.safetensors.index.json")
