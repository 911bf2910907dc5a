"""The manifest: what is written is read, what differs is named."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from embedded import MANIFEST

from hfclip.embedding.manifest import Manifest, find_manifest, read_manifest, write_manifest
from hfclip.errors import DataError


def changed(**values: Any) -> str:
    return json.dumps(json.loads(MANIFEST.to_json()) | values)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = replace(MANIFEST, background=(255, 0, 7), sources=("café\udcff", "b"), sha256=None)
    write_manifest(tmp_path, written)
    assert read_manifest(tmp_path) == written
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert list(content) == [field.name for field in fields(Manifest)]
    assert content["background"] == [255, 0, 7]


def test_a_missing_manifest_is_none_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    assert find_manifest(tmp_path) is None
    write_manifest(tmp_path, MANIFEST)
    assert find_manifest(tmp_path) == MANIFEST
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        find_manifest(tmp_path)


def test_unknown_fields_are_those_of_a_newer_version() -> None:
    with pytest.raises(DataError, match=r"does not know: a, z\. hfclip 9\.9 wrote it\. Update"):
        Manifest.from_json(changed(version="9.9", z=1, a=2))


def test_missing_and_malformed_fields_are_named() -> None:
    content = json.loads(MANIFEST.to_json())
    del content["dtype"], content["kind"]
    with pytest.raises(DataError, match="lacks the fields dtype, kind"):
        Manifest.from_json(json.dumps(content))
    with pytest.raises(DataError, match="dimension is '512'; expected int"):
        Manifest.from_json(changed(dimension="512"))
    with pytest.raises(DataError, match="dimension is True; expected int"):
        Manifest.from_json(changed(dimension=True))
    with pytest.raises(DataError, match="repository is 3; expected str or NoneType"):
        Manifest.from_json(changed(repository=3))
    with pytest.raises(DataError, match="holds list; expected an object"):
        Manifest.from_json("[]")
    with pytest.raises(DataError, match="is not JSON"):
        Manifest.from_json("{")


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a folder that `hfclip embed` wrote"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=f"^{tmp_path}: manifest.json lacks the fields name"):
        read_manifest(tmp_path)


def test_each_difference_is_named_with_its_option() -> None:
    other = replace(
        MANIFEST, preprocess="exact", dtype="float16", background=(1, 2, 3), kind="texts"
    )
    with pytest.raises(DataError) as caught:
        MANIFEST.check_same(other)
    assert str(caught.value) == (
        "The folder holds embeddings that were made differently: kind is 'images', now 'texts' "
        "(--text); preprocess is 'fast', now 'exact' (--preprocess); dtype is 'float32', now "
        "'float16' (--dtype); background is None, now (1, 2, 3) (--background). Use the same "
        "model and options, or name another folder."
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sha256", "e" * 64),
        ("sha256", None),
        ("config_digest", "d" * 64),
        ("precision", "bfloat16"),
        ("normalized", False),
        ("dimension", 5),
        ("auto_orient", False),
        ("max_pixels", 999),
    ],
)
def test_what_changes_embeddings_is_a_difference(name: str, value: Any) -> None:
    with pytest.raises(DataError, match="made differently"):
        MANIFEST.check_same(replace(MANIFEST, **{name: value}))


def test_another_model_is_named_with_its_place_and_weights() -> None:
    other = replace(MANIFEST, name="B", repository=None, commit=None, sha256="e" * 64)
    with pytest.raises(
        DataError,
        match=r"the model is 'digits' \(org/digits at 0123456789ab, sha256 ffffffffffff\), now 'B' "
        r"\(sha256 eeeeeeeeeeee\) \(--model\)",
    ):
        MANIFEST.check_same(other)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", "2.0"),
        ("plan_digest", "x"),
        ("inputs", 7),
        ("created", "now"),
        ("sources", ("other",)),
        ("max_pixels", 1_001),
        ("name", "a copy of the same weights"),
        ("commit", "fedc"),
    ],
)
def test_what_does_not_change_embeddings_is_no_difference(name: str, value: Any) -> None:
    MANIFEST.check_same(replace(MANIFEST, **{name: value}))


def test_without_hashes_the_name_and_the_commit_say_which_model_it_is() -> None:
    bare = replace(MANIFEST, sha256=None)
    bare.check_same(bare)
    with pytest.raises(DataError, match="the model is 'digits'"):
        bare.check_same(replace(bare, commit="fedc"))
