"""Every entry of open_clip's own table loads with the same results, or is refused by name."""

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from drawing import quickly_drawn
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

import hfclip
from conversion.models_table import open_clip_file
from hfclip.checkpoints.read import Checkpoint
from hfclip.errors import ConfigError
from hfclip.images.exact import Recipe
from hfclip.images.preprocess import transform_of
from hfclip.layouts.open_clip import config_from_open_clip

from .cut import one_block_each, short_ids

ENTRIES: list[tuple[str, str]] = open_clip.list_pretrained()

# A part of the name of a model that hfclip refuses -> the setting that the error names.
HF_TEXT, HF_TOKENIZER = "text_cfg.hf_model_name", "text_cfg.hf_tokenizer_name"
TIMM = "vision_cfg.timm_model_name"
REFUSED = {
    "coca_": "multimodal_cfg",
    "roberta-": HF_TEXT,
    "mt5-": HF_TEXT,
    "nllb-": HF_TEXT,
    "convnext_": TIMM,
    "EVA0": TIMM,
    "-SigLIP": TIMM,
    "MobileCLIP": TIMM,
    "ViTamin-": TIMM,
    "PE-Core-": TIMM,
    "-CLIPA": HF_TOKENIZER,
    "-worldwide": HF_TOKENIZER,
}
# The sizes of a tower. A CLIP of OpenAI's kind has open_clip's default for any other setting.
SIZES = {"image_size", "patch_size", "head_width", "context_length", "vocab_size", "heads"} | {
    "layers", "width", "mlp_ratio",
}  # fmt: skip


def refused_setting(model: str) -> str | None:
    """Returns the setting for which hfclip refuses a model, by the model's name; else None."""
    return next((setting for part, setting in REFUSED.items() if part in model), None)


def is_a_clip(model: str) -> bool:
    """Returns whether open_clip builds both of its own towers with default settings."""
    config = open_clip.get_model_config(model)
    towers = {"vision_cfg": open_clip.CLIPVisionCfg, "text_cfg": open_clip.CLIPTextCfg}
    if not config.keys() <= {"embed_dim", "quick_gelu", *towers}:
        return False
    for name, kind in towers.items():
        found, default = asdict(kind(**config[name])), asdict(kind())
        if any(found[field.name] != default[field.name] for field in fields(kind)
               if field.name not in SIZES):  # fmt: skip
            return False
    return True


LOADED = [(model, tag) for model, tag in ENTRIES if refused_setting(model) is None]


def test_the_names_of_the_refused_models_agree_with_their_configurations() -> None:
    for model, _ in ENTRIES:
        assert is_a_clip(model) == (refused_setting(model) is None), model


@pytest.mark.skipif(open_clip.__version__ != "3.3.0", reason="the numbers are those of 3.3.0")
def test_96_of_the_196_entries_load() -> None:
    assert (len(LOADED), len(ENTRIES)) == (96, 196)


@pytest.mark.parametrize(("model", "tag"), ENTRIES, ids=str)
def test_an_entry_is_read_or_refused_by_its_setting(model: str, tag: str) -> None:
    file, setting = open_clip_file(model, tag), refused_setting(model)
    if setting is not None:
        with pytest.raises(ConfigError) as caught:
            config_from_open_clip(file)
        message = str(caught.value)
        *place, key = setting.split(".")
        value = file["model_cfg"][place[0]][key] if place else file["model_cfg"][key]
        shown = f"'{value}'" if isinstance(value, str) else "{"
        assert message.startswith(f"model_cfg.{setting} is {shown}"), message
        assert message.endswith(" Load this model with open_clip instead."), message
        assert "\n" not in message
        return
    config = config_from_open_clip(file)
    towers = file["model_cfg"]["vision_cfg"], file["model_cfg"]["text_cfg"]
    assert config.image_resolution == towers[0]["image_size"]
    assert config.vision_width == towers[0]["width"]
    assert config.transformer_heads == towers[1]["heads"]
    assert config.activation == ("quick_gelu" if file["model_cfg"].get("quick_gelu") else "gelu")
    assert config.image_mean == tuple(file["preprocess_cfg"]["mean"])


def distinct_models() -> Iterator[Any]:
    """Yields each configuration of a loaded model once, with the first name that has it."""
    seen = set()
    for model, _ in LOADED:
        config = open_clip.get_model_config(model)
        if (text := json.dumps(config, sort_keys=True)) not in seen:
            seen.add(text)
            yield pytest.param(config, id=model)


@pytest.mark.parametrize("model", list(distinct_models()))
@torch.no_grad()
def test_a_model_of_the_table_gives_the_same_features(model: dict[str, Any]) -> None:
    cut = one_block_each(model)
    torch.manual_seed(3)
    theirs: Any = quickly_drawn(lambda: open_clip.CLIP(**cut))
    for name, tensor in theirs.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point():  # biases, norms and statistics
            tensor.add_(torch.rand_like(tensor), alpha=0.1)
        low, high = tensor.aminmax()
        assert name == "logit_scale" or not tensor.is_floating_point() or low < high, name
    config = config_from_open_clip({"model_cfg": cut})
    tensors = theirs.state_dict()
    ours = hfclip.CLIP.from_checkpoint(Checkpoint(Path("x"), "safetensors", config, tensors))
    side = config.image_resolution
    images = torch.rand(1, 3, side, side) * 4 - 2
    tokens = short_ids(["two dogs in the snow, seen from above", ""])
    pairs = (
        (ours.encode_image(images), theirs.encode_image(images)),
        (ours.encode_text(tokens), theirs.encode_text(tokens)),
    )
    for mine, other in pairs:
        assert mine.shape == other.shape
        assert (mine - other).norm() < 1e-5 * other.norm()


def distinct_preprocesses() -> Iterator[Any]:
    """Yields each preprocess of a loaded model once, with its file."""
    seen = set()
    for model, tag in LOADED:
        file = open_clip_file(model, tag)
        size = file["model_cfg"]["vision_cfg"]["image_size"]
        if (text := json.dumps([size, file["preprocess_cfg"]], sort_keys=True)) not in seen:
            seen.add(text)
            yield pytest.param(file, id=f"{model} {tag}")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    noise = [
        Image.effect_noise(size, 90).convert("RGB")
        for size in ((500, 333), (301, 640), (90, 61), (1000, 1003))
    ]
    return [image.convert(mode) for image in noise for mode in ("RGB", "L", "RGBA", "P")]


@pytest.mark.parametrize("file", list(distinct_preprocesses()))
def test_a_preprocess_of_the_table_gives_the_same_pixels(
    file: dict[str, Any], pictures: list[Image.Image]
) -> None:
    settings = PreprocessCfg(
        size=file["model_cfg"]["vision_cfg"]["image_size"], **file["preprocess_cfg"]
    )
    theirs = image_transform_v2(settings, is_train=False)
    ours = transform_of(Recipe.of(config_from_open_clip(file)))
    for image in pictures:
        assert torch.equal(ours(image), theirs(image)), (image.size, image.mode)
