"""A repository written by each library in its layout loads with equal features."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from drawing import quickly_drawn
from huggingface_hub import close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from safetensors.torch import save_file
from torch import Tensor

import hfclip
from hfclip import releases

from .test_models import (
    SMALL_RESNET,
    SMALL_VIT,
    assert_same_model,
    random_model,
    transformers_model,
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        yield hub
    close_session()


def publish(hub: LoopbackHub, repo_id: str, folder: Path) -> str:
    return hub.add_repository(repo_id, {path.name: path for path in folder.iterdir()})


def open_clip_model(model_cfg: dict[str, Any]) -> Any:
    import open_clip

    torch.manual_seed(9)
    return quickly_drawn(lambda: open_clip.CLIP(**model_cfg))


def save_as_open_clip(model: Any, model_cfg: dict[str, Any], folder: Path) -> None:
    folder.mkdir()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    preprocess = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


OPEN_CLIP_MODELS: dict[str, dict[str, Any]] = {
    "ViT, gelu, narrow heads": {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": 64,
            "layers": 2,
            "width": 64,
            "patch_size": 16,
            "head_width": 16,
        },
        "text_cfg": {"width": 64, "heads": 2, "layers": 2},
    },
    "ResNet, quick gelu": {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 16},
        "text_cfg": {"width": 64, "heads": 1, "layers": 2},
    },
}


@pytest.mark.parametrize("title", OPEN_CLIP_MODELS)
def test_a_repository_in_open_clips_layout_loads(
    title: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    model_cfg = OPEN_CLIP_MODELS[title]
    theirs = open_clip_model(model_cfg)
    save_as_open_clip(theirs, model_cfg, tmp_path / "model")
    publish(hub, "laion/small", tmp_path / "model")
    ours, preprocess = hfclip.load("hf-hub:laion/small", "cpu")
    assert_same_model(
        ours, theirs.encode_image, theirs.encode_text, lambda *b: theirs.get_logits(*b)[0]
    )
    assert preprocess.transforms[4].mean == (0.5, 0.4, 0.3)
    assert preprocess.transforms[4].std == (0.2, 0.3, 0.4)


def test_timms_files_with_only_the_image_tower_are_not_taken_for_a_clip(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    model_cfg = OPEN_CLIP_MODELS["ViT, gelu, narrow heads"]
    theirs = open_clip_model(model_cfg)
    save_as_open_clip(theirs, model_cfg, tmp_path / "model")
    tower = {
        key.removeprefix("visual."): value
        for key, value in theirs.state_dict().items()
        if key.startswith("visual.")
    }
    save_file(tower, tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "config.json").write_text('{"architecture": "vit", "pretrained_cfg": {}}')
    publish(hub, "timm/small", tmp_path / "model")
    ours, _ = hfclip.load("timm/small", "cpu")
    assert ours.text_projection.shape == (64, 32)
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / "model" / name).unlink()
    publish(hub, "timm/tower", tmp_path / "model")
    with pytest.raises(hfclip.ConfigError, match="timm's, for an image tower only"):
        hfclip.load("timm/tower", "cpu")


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_repository_in_transformers_layout_loads(
    activation: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    from transformers import CLIPImageProcessor

    torch.manual_seed(9)
    theirs = transformers_model(SMALL_VIT, activation)
    theirs.save_pretrained(tmp_path / "model")
    CLIPImageProcessor(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=[0.5, 0.4, 0.3],
    ).save_pretrained(tmp_path / "model")
    publish(hub, "openai/small", tmp_path / "model")
    ours, preprocess = hfclip.load("openai/small", "cpu")

    def text_features(tokens: Tensor) -> Tensor:
        features: Tensor = theirs.get_text_features(input_ids=tokens.long()).pooler_output
        return features

    assert_same_model(
        ours,
        lambda images: theirs.get_image_features(pixel_values=images).pooler_output,
        text_features,
        lambda images, tokens: (
            theirs(input_ids=tokens.long(), pixel_values=images).logits_per_image
        ),
    )
    assert ours.config.activation == activation
    assert preprocess.transforms[4].mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize("config", [SMALL_VIT, SMALL_RESNET], ids=["ViT", "ResNet"])
def test_a_repository_in_hfclips_layout_loads(
    config: Any, hub: LoopbackHub, tmp_path: Path
) -> None:
    model = random_model(config)
    model.save_pretrained(tmp_path / "model")
    publish(hub, "me/small", tmp_path / "model")
    ours, _ = hfclip.load("me/small", "cpu")
    assert_same_model(ours, model.encode_image, model.encode_text, lambda *b: model(*b)[0])


@pytest.mark.parametrize("name", ["ViT-B/32", "RN50"])
def test_a_release_of_full_size_gives_open_clips_features(
    name: str, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = releases.RELEASES[name]
    config = release.config
    model_cfg = {
        "embed_dim": config.embed_dim,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": config.image_resolution,
            "layers": config.vision_layers,
            "width": config.vision_width,
            "patch_size": config.vision_patch_size,
        },
        "text_cfg": {
            "width": config.transformer_width,
            "heads": config.transformer_heads,
            "layers": config.transformer_layers,
        },
    }
    theirs = open_clip_model(model_cfg)
    save_as_open_clip(theirs, model_cfg, tmp_path / "model")
    commit = publish(hub, release.hub.repo_id, tmp_path / "model")
    digest = hub.repository(release.hub.repo_id).commits[commit].files[release.hub.file].sha256
    pinned = dataclasses.replace(release.hub, revision=commit, sha256=digest)
    monkeypatch.setitem(releases.RELEASES, name, dataclasses.replace(release, hub=pinned))
    ours, _ = hfclip.load(name, "cpu")
    assert_same_model(
        ours, theirs.encode_image, theirs.encode_text, lambda *b: theirs.get_logits(*b)[0]
    )


def test_a_folder_in_each_layout_loads_like_a_repository(tmp_path: Path) -> None:
    model_cfg = OPEN_CLIP_MODELS["ViT, gelu, narrow heads"]
    theirs = open_clip_model(model_cfg)
    save_as_open_clip(theirs, model_cfg, tmp_path / "open_clip")
    transformers_model(SMALL_VIT, "gelu").save_pretrained(tmp_path / "transformers")
    checks: dict[str, Callable[[hfclip.CLIP], Any]] = {
        "open_clip": lambda ours: ours.config.vision_head_width == 16,
        "transformers": lambda ours: ours.config.activation == "gelu",
    }
    for layout, is_right in checks.items():
        assert is_right(hfclip.load(tmp_path / layout, "cpu")[0]), layout
