"""The facts of tensors from headers are those of the tensors."""

from pathlib import Path

import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT, SavedModel, draw
from safetensors.torch import save_file

import hfclip
from hfclip.checkpoints.headers import Header, has_headers, read_headers
from hfclip.checkpoints.read import read_checkpoint
from hfclip.config import ClipConfig
from hfclip.errors import CheckpointError
from hfclip.publishing.export import export
from hfclip.sources.find import find


def check(name: Path) -> None:
    """Checks that headers and tensors give the same facts."""
    source = find(name)
    headers, whole = read_headers(source), read_checkpoint(source)
    assert list(headers.tensors) == list(whole.tensors)
    for key, tensor in whole.tensors.items():
        assert headers.tensors[key] == Header(
            tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        ), key
    facts = ("path", "format", "config", "prefix", "config_origin", "assumed", "labels")
    assert {fact: getattr(headers, fact) for fact in facts} == {
        fact: getattr(whole, fact) for fact in facts
    }


@pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET], ids=["vit", "resnet"])
def test_headers_give_the_facts_of_the_tensors(config: ClipConfig, tmp_path: Path) -> None:
    draw(config).save_pretrained(tmp_path)
    check(tmp_path)


@pytest.mark.parametrize("layout", ["open_clip", "transformers"])
def test_headers_of_other_layouts_are_renamed_and_joined(layout: str, tmp_path: Path) -> None:
    draw(TINY_VIT).save_pretrained(tmp_path / "hfclip")
    export(tmp_path / "hfclip", tmp_path / layout, layout)
    check(tmp_path / layout)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool),
    ],
)
def test_dtypes_have_the_names_of_torch(
    saved_vit: SavedModel, dtype: torch.dtype, tmp_path: Path
) -> None:
    tensors = dict(saved_vit.model.state_dict())
    tensors["ln_final.bias"] = torch.zeros(64).to(dtype)
    save_file(tensors, tmp_path / "model.safetensors")
    check(tmp_path / "model.safetensors")


def test_only_safetensors_have_headers(saved_vit: SavedModel) -> None:
    assert [has_headers(find(path)) for path in saved_vit.files] == [True, False, False, False]


def test_a_truncated_file_is_an_error(saved_vit: SavedModel, tmp_path: Path) -> None:
    content = saved_vit.safetensors.read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_headers(find(tmp_path / "model.safetensors"))


def test_inspect_reads_a_hash_that_was_verified_and_hashes_a_changed_file(
    saved_vit: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from hfclip.hub import integrity

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved_vit.safetensors.read_bytes())
    sha256 = integrity.compute(path, "sha256")
    assert hfclip.inspect(path).sha256 == sha256
    assert integrity.matches(path, integrity.Digest("sha256", sha256))
    with monkeypatch.context() as refused:
        refused.setattr("hashlib.file_digest", None)
        assert hfclip.inspect(path).sha256 == sha256
    path.write_bytes(path.read_bytes())  # another time of change
    monkeypatch.setattr(integrity, "compute", None)
    assert hfclip.inspect(path).sha256 == sha256
