"""Models saved by open_clip and transformers compute the same features in hfclip."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import quickly_drawn, without_memory
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import hfclip
from hfclip.checkpoints.read import Checkpoint
from hfclip.config import ClipConfig
from hfclip.errors import ConfigError
from hfclip.layouts.open_clip import config_from_open_clip, config_to_open_clip
from hfclip.layouts.transformers import (
    config_from_transformers,
    config_to_transformers,
    from_transformers,
    to_transformers,
)
from hfclip.releases import RELEASES

from .cut import one_block_each, short_ids

SMALL_VIT = ClipConfig(32, 64, 2, 64, 16, 77, 49408, 48, 3, 2, vision_head_width=32)
OTHER_MLPS = replace(SMALL_VIT, vision_mlp_width=100, transformer_mlp_width=211)
SMALL_RESNET = ClipConfig(32, 64, (1, 2, 1, 1), 8, None, 77, 49408, 48, 3, 2)
CONFIGS = {
    f"{activation} {kind}": replace(config, activation=activation)
    for kind, config in (
        ("ViT", SMALL_VIT),
        ("ResNet", SMALL_RESNET),
        ("other MLPs, ViT", OTHER_MLPS),
        ("other MLPs, ResNet", replace(SMALL_RESNET, transformer_mlp_width=211)),
    )
    for activation in ("quick_gelu", "gelu")
}
VITS = {name: release for name, release in RELEASES.items() if not release.config.is_resnet}
# Releases whose name in open_clip is not OpenAI's name with a dash for the slash.
NAMES = {"ViT-L/14@336px": "ViT-L-14-336"}
CAPTIONS = ["a cat", "two dogs in the snow, seen from above", ""]


@torch.no_grad()
def draw(build: Callable[[], nn.Module]) -> Any:
    """Builds a model and sets every tensor to random values, including BatchNorm statistics."""
    torch.manual_seed(7)
    model = quickly_drawn(build)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and name != "logit_scale":
            tensor.add_(torch.rand_like(tensor), alpha=0.02)
    return model.eval()


def saved(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Saves a model's tensors to a file and returns them as read from it."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return load_file(path)


def read(config: ClipConfig, tensors: Mapping[str, Tensor], path: Path) -> hfclip.CLIP:
    return hfclip.CLIP.from_checkpoint(Checkpoint(path, "safetensors", config, tensors))


@torch.no_grad()
def assert_same(ours: hfclip.CLIP, theirs: Callable[[Tensor, Tensor], tuple[Tensor, ...]]) -> None:
    """Compares image features, text features and logits, each within 1e-5 of its norm."""
    side = ours.config.image_resolution
    images, tokens = torch.randn(2, 3, side, side), hfclip.tokenize(CAPTIONS)
    found = ours.encode_image(images), ours.encode_text(tokens), ours(images, tokens)[0]
    for mine, other in zip(found, theirs(images, tokens), strict=True):
        assert (mine - other).norm() < 1e-5 * other.norm()


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_saved_by_open_clip_gives_the_same_features(name: str, tmp_path: Path) -> None:
    import open_clip

    file = json.loads(json.dumps(config_to_open_clip(CONFIGS[name])))
    theirs = draw(lambda: open_clip.CLIP(**file["model_cfg"]))
    path = tmp_path / "open_clip_model.safetensors"
    ours = read(config_from_open_clip(file), saved(theirs, path), path)
    assert ours.config == CONFIGS[name]
    assert_same(ours, features_of_open_clip(theirs))


def features_of_open_clip(model: Any) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    return lambda images, tokens: (
        model.encode_image(images),
        model.encode_text(tokens),
        model.get_logits(images, tokens)[0],
    )


# Hidden units of both towers' MLPs, where they are not four times as wide as the tower.
LARGE_MODELS = {
    "ViT-g-14": (6144, None),
    "ViT-bigG-14": (8192, None),
    "ViT-bigG-14-quickgelu": (8192, None),
    "ViT-e-14": (15360, None),
    "ViT-H-14": (None, None),
    "ViT-H-16": (None, None),
    "ViT-L-14-280": (None, None),
}


@pytest.mark.parametrize("name", LARGE_MODELS)
def test_a_large_model_of_open_clip_gives_the_same_features_with_one_block(name: str) -> None:
    import open_clip

    values = one_block_each(open_clip.get_model_config(name))
    torch.manual_seed(7)
    # Not drawn by `draw`: with its positive offset, wide sums lose digits in float32.
    theirs: Any = quickly_drawn(lambda: open_clip.CLIP(**values))
    config = config_from_open_clip({"model_cfg": values})
    ours = read(config, theirs.state_dict(), Path("open_clip_model.safetensors"))
    assert (ours.config.vision_mlp_width, ours.config.transformer_mlp_width) == LARGE_MODELS[name]
    side, tokens = ours.config.image_resolution, short_ids(CAPTIONS)
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        pairs = (
            (ours.encode_image(images), theirs.encode_image(images)),
            (ours.encode_text(tokens), theirs.encode_text(tokens)),
        )
    # Not the logits: those of random weights are near 0, where rounding is relatively large.
    for mine, other in pairs:
        assert (mine - other).norm() < 1e-5 * other.norm()
    again = without_memory(lambda: open_clip.CLIP(**config_to_open_clip(ours.config)["model_cfg"]))
    assert shapes(again.state_dict()) == shapes(theirs.state_dict())


@pytest.mark.parametrize("eos_token_id", [2, 49407])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name.endswith("ViT")])
def test_a_model_saved_by_transformers_gives_the_same_features(
    name: str, eos_token_id: int, tmp_path: Path
) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    values, preprocessor = config_to_transformers(CONFIGS[name])
    values["text_config"]["eos_token_id"] = eos_token_id
    theirs: Any = draw(lambda: CLIPModel(CLIPConfig(**values)))
    theirs.config.save_pretrained(tmp_path)
    CLIPImageProcessor(**preprocessor).save_pretrained(tmp_path)
    files = [
        json.loads((tmp_path / file).read_text())
        for file in ("config.json", "preprocessor_config.json")
    ]
    path = tmp_path / "model.safetensors"
    ours = read(config_from_transformers(*files), from_transformers(saved(theirs, path)), path)
    assert ours.config == CONFIGS[name]
    assert_same(ours, features_of_transformers(theirs))


def features_of_transformers(model: Any) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    def features(images: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        ids = tokens.long()
        return (
            model.get_image_features(pixel_values=images).pooler_output,
            model.get_text_features(input_ids=ids).pooler_output,
            model(input_ids=ids, pixel_values=images).logits_per_image,
        )

    return features


def random_stack(random: np.random.Generator, activation: str) -> dict[str, Any]:
    """Draws the sizes of one tower for transformers."""
    heads, head_width, layers, units = random.integers((1, 2, 1, 1), (7, 25, 4, 401)).tolist()
    return {
        "hidden_size": heads * head_width,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": units,
        "hidden_act": activation,
    }


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("seed", range(8))
def test_random_models_of_transformers_give_the_same_features(
    seed: int, activation: str, tmp_path: Path
) -> None:
    from transformers import CLIPConfig, CLIPModel

    random = np.random.default_rng(seed)
    text, vision = random_stack(random, activation), random_stack(random, activation)
    patch, grid, out = random.integers((5, 1, 2), (17, 5, 91)).tolist()
    vision |= {"patch_size": patch, "image_size": patch * grid + patch // 3}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=out)
    theirs: Any = draw(lambda: CLIPModel(config))
    theirs.config.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    path = tmp_path / "model.safetensors"
    ours = read(config_from_transformers(values), from_transformers(saved(theirs, path)), path)
    assert ours.config.vision_mlp_units == vision["intermediate_size"]
    assert ours.config.transformer_mlp_units == text["intermediate_size"]
    assert_same(ours, features_of_transformers(theirs))
    written, _ = config_to_transformers(ours.config)
    again: Any = without_memory(lambda: CLIPModel(CLIPConfig(**written)))
    assert shapes(again.state_dict()) == shapes(theirs.state_dict())


@pytest.mark.parametrize("name", RELEASES)
def test_open_clip_describes_each_release_as_the_table_does(name: str) -> None:
    import open_clip

    model = open_clip.get_model_config(f"{NAMES.get(name, name.replace('/', '-'))}-quickgelu")
    assert config_from_open_clip({"model_cfg": model}) == RELEASES[name].config


@pytest.mark.parametrize("name", RELEASES)
def test_open_clip_builds_each_release_from_the_written_file(name: str) -> None:
    import open_clip

    config = RELEASES[name].config
    theirs = without_memory(lambda: open_clip.CLIP(**config_to_open_clip(config)["model_cfg"]))
    ours = without_memory(lambda: hfclip.CLIP(**config.to_dict()))
    assert shapes(theirs.state_dict()) == shapes(ours.state_dict())


@pytest.mark.parametrize("name", VITS)
def test_transformers_builds_each_release_from_the_written_file(name: str) -> None:
    from transformers import CLIPConfig, CLIPModel

    config = VITS[name].config
    values, preprocessor = config_to_transformers(config)
    theirs: Any = without_memory(lambda: CLIPModel(CLIPConfig(**values)))
    ours = without_memory(lambda: hfclip.CLIP(**config.to_dict()))
    assert shapes(theirs.state_dict()) == shapes(to_transformers(ours.state_dict()))
    written = json.loads(theirs.config.to_json_string())
    assert config_from_transformers(written, preprocessor) == config


def test_only_open_clip_models_of_openais_kind_are_read() -> None:
    import open_clip

    def verdict(name: str) -> bool:
        try:
            config_from_open_clip({"model_cfg": open_clip.get_model_config(name)})
        except ConfigError:
            return False
        return True

    read = {name for name in open_clip.list_models() if verdict(name)}
    # Models with other tokenizers or a layer scale.
    plain = {
        name
        for name in open_clip.list_models()
        if name.startswith(("ViT-", "RN"))
        and not any(word in name for word in ("SigLIP", "CLIPA", "worldwide"))
    }
    assert read == plain - {"ViT-M-16-alt"}


@pytest.mark.parametrize(
    "values",
    [
        {"text_config": {"hidden_size": 64}, "text_config_dict": {"num_hidden_layers": 3}},
        {"vision_config": {"image_size": 448}, "vision_config_dict": {}},
        {"text_config": {"num_hidden_layers": 2}, "text_config_dict": None},
    ],
)
def test_older_sections_are_read_as_transformers_reads_them(values: dict[str, Any]) -> None:
    from transformers import CLIPConfig

    resolved = json.loads(CLIPConfig(**values).to_json_string())
    ours = config_from_transformers({"model_type": "clip", **values})
    assert ours == config_from_transformers(resolved)


def test_missing_settings_have_the_defaults_of_transformers() -> None:
    from transformers import CLIPConfig, CLIPImageProcessor

    values = json.loads(CLIPConfig().to_json_string())
    preprocessor = json.loads(CLIPImageProcessor().to_json_string())
    assert config_from_transformers({"model_type": "clip"}, {}) == config_from_transformers(
        values, preprocessor
    )


@pytest.mark.parametrize("section", ["vision_cfg", "text_cfg"])
def test_every_setting_of_open_clip_is_accepted_or_refused(section: str) -> None:
    from dataclasses import fields

    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    from hfclip.layouts import open_clip as layout

    known = {
        "vision_cfg": (CLIPVisionCfg, layout._VISION_CFG),
        "text_cfg": (CLIPTextCfg, layout._TEXT_CFG),
    }
    settings, table = known[section]
    judged = table.numbers.keys() | table.fixed.keys() | (table.ignored or frozenset())
    assert judged == {field.name for field in fields(settings)}
    defaults = {field.name: field.default for field in fields(settings)}
    assert {key: default for key, (_, default) in table.numbers.items()} == {
        key: defaults[key] for key in table.numbers
    }
    assert all(
        defaults[key] in accepted
        for key, (accepted, _) in table.fixed.items()
        if key != "hf_model_name"  # if absent it has its default; if present the class differs
    )
