"""The libraries of each layout load hfclip's exports and compute the same features."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SavedModel
from exported import OTHER_MLPS, RESNET, SHALLOW_VIT, VIT, Export
from torch import Tensor

import hfclip
from hfclip.config import ClipConfig
from hfclip.publishing.export import export

TEXTS = ["a cat", "two dogs in the snow, seen from above", ""]
SaveModel = Callable[[ClipConfig, torch.dtype], SavedModel]


@pytest.fixture(
    params=[
        pytest.param((VIT, torch.float32), id="vit"),
        pytest.param((SHALLOW_VIT, torch.float16), id="vit-half"),
        pytest.param((OTHER_MLPS, torch.float32), id="vit-other-mlps"),
        pytest.param((RESNET, torch.float32), id="resnet"),
        pytest.param((RESNET, torch.float16), id="resnet-half"),
    ]
)
def saved(request: pytest.FixtureRequest, save_model: SaveModel) -> SavedModel:
    return save_model(*request.param)


@functools.cache
@torch.no_grad()
def batch_and_features(archive: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns images, token ids, and the features that hfclip computes of them in float32."""
    model, _ = hfclip.load(archive, "cpu")
    torch.manual_seed(3)
    images, ids = torch.randn(3, 3, 64, 64), hfclip.tokenize(TEXTS).long()
    return images, ids, model.encode_image(images), model.encode_text(ids)


@torch.no_grad()
def assert_same(
    saved: SavedModel,
    encode_image: Callable[[Tensor], Tensor],
    encode_text: Callable[[Tensor], Tensor],
    tolerance: float = 1e-5,
) -> None:
    """Compares image and text features, computed in float32 from the same stored weights."""
    images, ids, of_images, of_texts = batch_and_features(saved.archive)
    for mine, other in ((of_images, encode_image(images)), (of_texts, encode_text(ids))):
        assert other.dtype == torch.float32
        assert (mine - other).norm() < tolerance * mine.norm()


def test_open_clip_loads_its_layout(saved: SavedModel, tmp_path: Path) -> None:
    import open_clip

    export(saved.archive, tmp_path / "out", "open_clip")
    theirs, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'out'}")
    assert_same(saved, theirs.eval().encode_image, theirs.encode_text)


def test_transformers_loads_its_layout(
    saved: SavedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor

    if saved.model.config.is_resnet:
        pytest.skip("transformers has no ResNet")
    export(saved.archive, tmp_path / "out", "transformers")
    theirs: Any = CLIPModel.from_pretrained(tmp_path / "out")
    assert_same(
        saved,
        lambda images: theirs.get_image_features(pixel_values=images).pooler_output,
        lambda ids: theirs.get_text_features(input_ids=ids).pooler_output,
    )
    processor: Any = CLIPProcessor.from_pretrained(tmp_path / "out", use_fast=False)
    picture = Image.fromarray(np.arange(80 * 64 * 3, dtype=np.uint8).reshape(80, 64, 3))
    given = processor(text=TEXTS[1], images=picture, return_tensors="pt")
    _, preprocess = hfclip.load(saved.archive, "cpu")
    assert (
        given["input_ids"][0].tolist() == hfclip.tokenize(TEXTS[1], padding="longest")[0].tolist()
    )
    assert (given["pixel_values"][0] - preprocess(picture)).abs().max() < 0.02


def test_clip_loads_its_layout(saved: SavedModel, tmp_path: Path, clip: ModuleType) -> None:
    if saved.model.dtype == torch.float32:
        pytest.skip("clip rounds what it loads to float16")
    export(saved.archive, tmp_path / "out", "openai")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tries TorchScript first, which torch deprecates
        theirs, _ = clip.load(str(tmp_path / "out" / "model.pt"), device="cpu")
    assert_same(saved, theirs.encode_image, theirs.encode_text)


def test_onnxruntime_runs_both_graphs(
    saved: SavedModel, onnx_export: Callable[[ClipConfig, torch.dtype], Export]
) -> None:
    import onnxruntime

    folder = onnx_export(saved.model.config, saved.model.dtype).folder

    def run(graph: str, name: str) -> Callable[[Tensor], Tensor]:
        session = onnxruntime.InferenceSession(folder / graph)
        return lambda given: torch.from_numpy(session.run(None, {name: given.numpy()})[0])

    encode_text = run("text.onnx", "text")
    assert_same(saved, run("image.onnx", "image"), encode_text, 1e-4)
    short = hfclip.tokenize(TEXTS, padding="longest").long()
    ours, _ = hfclip.load(saved.archive, "cpu")
    with torch.no_grad():
        expected = ours.encode_text(short)
    assert (encode_text(short) - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize(
    "config",
    [
        replace(SHALLOW_VIT, activation="gelu", vision_head_width=32, image_resolution=70),
        replace(RESNET, activation="gelu", vision_head_width=32, image_resolution=96),
    ],
    ids=["vit", "resnet"],
)
@torch.no_grad()
def test_onnxruntime_runs_gelu_other_sizes_and_a_single_token(
    config: ClipConfig, onnx_export: Callable[[ClipConfig, torch.dtype], Export]
) -> None:
    import onnxruntime

    made = onnx_export(config, torch.float32)
    ours, _ = hfclip.load(made.source, "cpu")
    torch.manual_seed(3)
    side = config.image_resolution
    for graph, given, expected in (
        ("image", (images := torch.randn(1, 3, side, side)), ours.encode_image(images)),
        ("text", (token := torch.tensor([[5], [7]])), ours.encode_text(token)),
    ):
        session = onnxruntime.InferenceSession(made.folder / f"{graph}.onnx")
        got = torch.from_numpy(session.run(["features"], {graph: given.numpy()})[0])
        assert (got - expected).norm() < 1e-4 * expected.norm()
