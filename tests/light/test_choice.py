"""The choice between NumPy and torch: the wish, the device, the weights and the questions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SavedModel
from safetensors.torch import save_file

from hfclip.errors import ArgumentError
from hfclip.light import choice
from hfclip.light.choice import choose
from hfclip.sources.find import Found, find


@pytest.fixture
def source() -> Found:
    return find("digits")


@pytest.mark.parametrize("wish", ["numpy", "torch"])
def test_a_wish_is_fulfilled(source: Found, wish: Any) -> None:
    assert choose(wish, source, pictures=1) == wish
    assert choose(wish, source, pictures=10**9) == wish


def test_auto_follows_the_costs(source: Found) -> None:
    assert choose("auto", source, pictures=1, captions=10) == "numpy"
    assert choose("auto", source, device="cpu", captions=1) == "numpy"
    assert choose("auto", source, pictures=10**7) == "torch"
    assert choose("auto", source, captions=10**7) == "torch"


@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("mps"), 0])
def test_another_device_than_the_cpu_needs_torch(source: Found, device: Any) -> None:
    assert choose("auto", source, device=device, pictures=1) == "torch"
    with pytest.raises(ArgumentError, match="NumPy computes on the CPU, and the device is"):
        choose("numpy", source, device=device, pictures=1)


def test_another_wish_is_refused(source: Found) -> None:
    with pytest.raises(ArgumentError, match="expected 'auto', 'numpy' or 'torch'"):
        choose("jax", source)  # type: ignore[arg-type]


def test_weights_that_numpy_cannot_read_need_torch(saved_vit: SavedModel, tmp_path: Path) -> None:
    assert choose("auto", find(saved_vit.safetensors), pictures=1) == "numpy"
    for path in saved_vit.files[1:]:
        assert choose("auto", find(path), pictures=1) == "torch"
    tensors = dict(saved_vit.model.state_dict())
    tensors["text_projection"] = tensors["text_projection"].to(torch.float8_e4m3fn)
    save_file(tensors, tmp_path / "model.safetensors")
    assert choose("auto", find(tmp_path / "model.safetensors"), pictures=1) == "torch"


def test_the_shapes_give_the_size_of_a_model_without_a_configuration(
    saved_vit: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find(saved_vit.safetensors)
    asked: list[Any] = []

    def spy(config: Any, *counts: int, **_: bool) -> str:
        asked.append((config, *counts))
        return "numpy"

    monkeypatch.setattr(choice, "quickest", spy)
    choose("auto", replace(source, config=None), pictures=2, captions=3)
    assert asked == [(saved_vit.model.config, 2, 3)]


def test_without_torch_numpy_answers(source: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    assert choose("auto", source, pictures=10**9) == "numpy"
