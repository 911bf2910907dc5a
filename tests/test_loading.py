from pathlib import Path
from typing import Any

import pytest
import torch

import hfclip
from hfclip.releases import RELEASES


def test_the_nine_names_come_in_the_order_of_openai() -> None:
    assert hfclip.available_models() == [
        "RN50",
        "RN101",
        "RN50x4",
        "RN50x16",
        "RN50x64",
        "ViT-B/32",
        "ViT-B/16",
        "ViT-L/14",
        "ViT-L/14@336px",
    ]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ViT-B-16", "ViT-B/16"),
        ("vit-l-14-336", "ViT-L/14@336px"),
        ("RN50X4", "RN50x4"),
        ("digit", "digits"),
    ],
)
def test_an_error_for_a_misspelt_name_suggests_the_nearest_name(typed: str, meant: str) -> None:
    with pytest.raises(hfclip.ModelNotFoundError, match=f"Did you mean '{meant}'") as caught:
        hfclip.load(typed)
    assert isinstance(caught.value, RuntimeError)
    assert all(name in str(caught.value) for name in hfclip.available_models())


def test_an_error_for_an_unrelated_name_suggests_nothing() -> None:
    with pytest.raises(hfclip.ModelNotFoundError) as caught:
        hfclip.load("resnet-of-my-own-making")
    assert "Did you mean" not in str(caught.value)


def test_an_error_for_a_folder_without_weights_names_the_missing_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        hfclip.RepositoryError, match=r"neither config\.json with model\.safetensors"
    ):
        hfclip.load(tmp_path)


def test_the_model_is_ready_to_use() -> None:
    model, preprocess = hfclip.load("digits", device="cpu")
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert str(preprocess.transforms[0]).startswith("Resize(size=32, interpolation=bicubic")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_requested_dtype_is_used(dtype: torch.dtype) -> None:
    model, _ = hfclip.load("digits", device="cpu", dtype=dtype)
    assert model.dtype == dtype
    assert model.ln_final.weight.dtype == torch.float32


def test_a_dtype_that_cannot_compute_is_refused() -> None:
    with pytest.raises(hfclip.ArgumentError, match=r"dtype is torch\.int8"):
        hfclip.load("digits", dtype=torch.int8)


def test_an_unknown_preprocess_is_refused() -> None:
    unknown: Any = "quick"
    with pytest.raises(
        hfclip.ArgumentError, match="preprocess is 'quick'; expected 'exact' or 'fast'"
    ):
        hfclip.load("digits", device="cpu", preprocess=unknown)


def test_weights_named_in_their_folder_keep_its_configuration(tmp_path: Path) -> None:
    model = hfclip.CLIP(8, 32, 1, 64, 16, 6, 50, 64, 1, 1, activation="gelu")
    model.save_pretrained(tmp_path)
    loaded, _ = hfclip.load(tmp_path / "model.safetensors")
    assert loaded.config.activation == "gelu"


@torch.no_grad()
def test_the_script_module_computes_the_same_for_any_batch() -> None:
    model, _ = hfclip.load("digits", device="cpu")
    scripted, preprocess = hfclip.load("digits", device="cpu", jit=True)
    assert isinstance(scripted, torch.jit.ScriptModule)
    assert preprocess.transforms[1].size == (32, 32)
    for images, texts, length in ((1, 1, 77), (5, 2, 77), (3, 4, 9)):
        image = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(images))
        text = hfclip.tokenize(["the digit 7"] * texts)[:, :length]
        for ours, theirs in zip(scripted(image, text), model(image, text), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-4)
        assert torch.allclose(scripted.encode_image(image), model.encode_image(image), atol=1e-5)
        assert torch.allclose(scripted.encode_text(text), model.encode_text(text), atol=1e-5)


def test_the_script_module_has_the_numbers_of_the_model() -> None:
    scripted, _ = hfclip.load("digits", device="cpu", jit=True)
    numbers = [scripted.input_resolution, scripted.context_length, scripted.vocab_size]
    assert [int(number) for number in numbers] == [32, 77, 49408]


def test_every_release_is_pinned_by_40_or_64_hexadecimal_digits() -> None:
    for release in RELEASES.values():
        assert len(release.original.sha256) == 64
        assert release.hub.revision is None or len(release.hub.revision) == 40
        assert release.hub.sha256 is None or len(release.hub.sha256) == 64
