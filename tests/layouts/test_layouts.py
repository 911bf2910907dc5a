"""Configurations and weights of open_clip and transformers, read and written."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from hfclip.config import OPENAI_MEAN, OPENAI_STD, ClipConfig
from hfclip.errors import ConfigError
from hfclip.layouts.detect import config_from_json, is_transformers_clip
from hfclip.layouts.native import is_hfclip
from hfclip.layouts.open_clip import config_from_open_clip, config_to_open_clip
from hfclip.layouts.transformers import (
    config_from_transformers,
    config_to_transformers,
    from_transformers,
    to_transformers,
)
from hfclip.releases import RELEASES

VIT_B_32 = ClipConfig(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12)
GELU_B_32 = dataclasses.replace(VIT_B_32, activation="gelu")
# All numbers differ, so that a test notices when two are exchanged.
ODD_VIT = ClipConfig(
    24,
    48,
    3,
    80,
    16,
    20,
    700,
    36,
    6,
    5,
    activation="gelu",
    vision_head_width=40,
    vision_mlp_width=333,
    transformer_mlp_width=90,
    image_mean=(0.1, 0.2, 0.3),
    image_std=(0.4, 0.5, 0.6),
)
ODD_RESNET = dataclasses.replace(
    ODD_VIT,
    image_resolution=64,
    vision_layers=(1, 2, 3, 4),
    vision_width=10,
    vision_patch_size=None,
    vision_mlp_width=None,
)

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]

# timm/vit_base_patch32_clip_224.openai, open_clip_config.json
TIMM_OPENAI = """
{
  "model_cfg": {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {
      "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12
    },
    "quick_gelu": true
  },
  "preprocess_cfg": {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest"
  }
}
"""
# timm/resnet50_clip.openai
TIMM_RN50 = """
{
  "model_cfg": {
    "embed_dim": 1024,
    "quick_gelu": true,
    "vision_cfg": {"image_size": 224, "layers": [3, 4, 6, 3], "width": 64, "patch_size": null},
    "text_cfg": {
      "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12
    }
  },
  "preprocess_cfg": {
    "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]
  }
}
"""
# laion/CLIP-ViT-B-32-laion2B-s34B-b79K, open_clip_config.json
LAION_B_32 = """
{
  "model_cfg": {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {
      "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12
    }
  },
  "preprocess_cfg": {
    "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]
  }
}
"""
# laion/CLIP-ViT-H-14-laion2B-s32B-b79K: heads of width 80
LAION_H_14 = """
{
  "model_cfg": {
    "embed_dim": 1024,
    "vision_cfg": {
      "image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14
    },
    "text_cfg": {
      "context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24
    }
  },
  "preprocess_cfg": {
    "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]
  }
}
"""
# openai/clip-vit-base-patch32, config.json, less the settings of text generation
OPENAI_TRANSFORMERS = """
{
  "_name_or_path": "openai/clip-vit-base-patch32",
  "architectures": ["CLIPModel"],
  "initializer_factor": 1.0,
  "logit_scale_init_value": 2.6592,
  "model_type": "clip",
  "projection_dim": 512,
  "text_config": {
    "_name_or_path": "",
    "add_cross_attention": false,
    "architectures": null,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "do_sample": false,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 512,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_length": 20,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 8,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 512,
    "pruned_heads": {},
    "torch_dtype": null,
    "transformers_version": "4.16.0.dev0",
    "use_bfloat16": false,
    "vocab_size": 49408
  },
  "text_config_dict": null,
  "transformers_version": null,
  "vision_config": {
    "_name_or_path": "",
    "architectures": null,
    "attention_dropout": 0.0,
    "bos_token_id": null,
    "dropout": 0.0,
    "eos_token_id": null,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "image_size": 224,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "patch_size": 32,
    "projection_dim": 512,
    "pruned_heads": {},
    "transformers_version": "4.16.0.dev0"
  },
  "vision_config_dict": null
}
"""
# openai/clip-vit-base-patch32, preprocessor_config.json, from before sizes had sides
OPENAI_PREPROCESSOR = """
{
  "crop_size": 224,
  "do_center_crop": true,
  "do_normalize": true,
  "do_resize": true,
  "feature_extractor_type": "CLIPFeatureExtractor",
  "image_mean": [0.48145466, 0.4578275, 0.40821073],
  "image_std": [0.26862954, 0.26130258, 0.27577711],
  "resample": 3,
  "size": 224
}
"""
# openai/clip-vit-large-patch14: the newer sections repeat what the older ones say
OPENAI_LARGE = """
{
  "architectures": ["CLIPModel"],
  "model_type": "clip",
  "projection_dim": 768,
  "text_config": {
    "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768,
    "intermediate_size": 3072, "max_position_embeddings": 77, "model_type": "clip_text_model",
    "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768,
    "vocab_size": 49408
  },
  "text_config_dict": {
    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
    "num_hidden_layers": 12, "projection_dim": 768
  },
  "vision_config": {
    "hidden_act": "quick_gelu", "hidden_size": 1024, "image_size": 224,
    "intermediate_size": 4096, "model_type": "clip_vision_model", "num_attention_heads": 16,
    "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768
  },
  "vision_config_dict": {
    "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768
  }
}
"""
# laion/CLIP-ViT-B-32-laion2B-s34B-b79K, config.json: only what differs from the defaults
LAION_TRANSFORMERS = """
{
  "architectures": ["CLIPModel"],
  "initializer_factor": 1.0,
  "logit_scale_init_value": 2.6592,
  "model_type": "clip",
  "projection_dim": 512,
  "text_config": {"hidden_act": "gelu", "model_type": "clip_text_model"},
  "torch_dtype": "float32",
  "transformers_version": "4.24.0",
  "vision_config": {"hidden_act": "gelu", "model_type": "clip_vision_model"}
}
"""
# timm/vit_base_patch32_clip_224.openai, config.json: only the image tower
TIMM_TOWER = """
{
  "architecture": "vit_base_patch32_clip_224",
  "num_classes": 512,
  "num_features": 768,
  "global_pool": "token",
  "pretrained_cfg": {"tag": "openai", "input_size": [3, 224, 224]}
}
"""


def changed(text: str, path: str, value: object) -> dict[str, Any]:
    """Returns a file's object with one changed value: `changed(file, "model_cfg.embed_dim", 4)`."""
    values: dict[str, Any] = json.loads(text)
    *parents, key = path.split("/")
    section = values
    for parent in parents:
        section = section.setdefault(parent, {})
    section[key] = value
    return values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TIMM_OPENAI, VIT_B_32),
        (TIMM_RN50, ClipConfig(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12)),
        (LAION_B_32, GELU_B_32),
        (
            LAION_H_14,
            ClipConfig(
                1024,
                224,
                32,
                1280,
                14,
                77,
                49408,
                1024,
                16,
                24,
                activation="gelu",
                vision_head_width=80,
            ),
        ),
    ],
    ids=["ViT-B/32", "RN50", "laion B/32", "laion H/14"],
)
def test_published_open_clip_files_are_read(text: str, expected: ClipConfig) -> None:
    assert config_from_open_clip(json.loads(text)) == expected


def test_missing_settings_of_an_open_clip_file_have_their_defaults() -> None:
    values = {"model_cfg": {"embed_dim": 9, "vision_cfg": {}, "text_cfg": {}}}
    expected = ClipConfig(9, 224, 12, 768, 16, 77, 49408, 512, 8, 12, activation="gelu")
    assert config_from_open_clip(values) == expected


def test_open_clip_settings_with_default_values_or_no_effect_are_accepted() -> None:
    values = json.loads(TIMM_OPENAI)
    values["model_cfg"] |= {"custom_text": False, "init_logit_bias": None, "output_dict": True}
    values["model_cfg"]["vision_cfg"] |= {
        "image_size": [224, 224],
        "patch_size": [32, 32],
        "head_width": 64,
        "mlp_ratio": 4,
        "patch_dropout": 0.5,
        "pool_type": "tok",
        "timm_model_name": None,
        "timm_pool": "",
        "norm_kwargs": {},
    }
    values["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "",
        "tokenizer_kwargs": {},
        "pad_id": 1,
        "eos_id": 7,
        "pool_type": "argmax",
        "block_type": "default",
    }
    values["preprocess_cfg"] |= {"size": 224, "mode": "RGB", "fill_color": 0}
    assert config_from_open_clip(values) == VIT_B_32


def test_the_mean_and_std_of_an_open_clip_file_are_read() -> None:
    values = changed(TIMM_OPENAI, "preprocess_cfg", {"mean": HALF, "std": [0.1, 0.2, 0.3]})
    config = config_from_open_clip(values)
    assert (config.image_mean, config.image_std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    values = changed(TIMM_OPENAI, "preprocess_cfg", {"mean": None})
    config = config_from_open_clip(values)
    assert (config.image_mean, config.image_std) == (OPENAI_MEAN, OPENAI_STD)


BOTH_TOWERS = {
    "ls_init_value": 0.0,
    "final_ln_after_pool": True,
    "output_tokens": True,
    "act_kwargs": {"approximate": "tanh"},
    "norm_kwargs": {"eps": 1e-6},
    "block_type": "custom",
    "qk_norm": True,
    "scaled_cosine_attn": True,
    "scale_heads": True,
    "scale_attn_inner": True,
    "scale_attn": True,
    "scale_fc": True,
    "surprise": 1,
}
OPEN_CLIP_REFUSALS = {
    "surprise": 1,
    "model_cfg/surprise": 1,
    "model_cfg/custom_text": True,
    "model_cfg/multimodal_cfg": {"layers": 12},
    "model_cfg/init_logit_bias": -10,
    "model_cfg/quick_gelu": "yes",
    **{f"model_cfg/vision_cfg/{key}": value for key, value in BOTH_TOWERS.items()},
    "model_cfg/vision_cfg/attentional_pool": "parallel",
    "model_cfg/vision_cfg/pool_type": "avg",
    "model_cfg/vision_cfg/pos_embed_type": "sin_cos_2d",
    "model_cfg/vision_cfg/no_ln_pre": True,
    "model_cfg/vision_cfg/timm_model_name": "convnext_base",
    "model_cfg/vision_cfg/image_size": [224, 336],
    "model_cfg/vision_cfg/patch_size": [16, 32],
    **{f"model_cfg/text_cfg/{key}": value for key, value in BOTH_TOWERS.items()},
    "model_cfg/text_cfg/pool_type": "eos",
    "model_cfg/text_cfg/embed_cls": True,
    "model_cfg/text_cfg/no_causal_mask": True,
    "model_cfg/text_cfg/proj_bias": True,
    "model_cfg/text_cfg/proj_type": "none",
    "model_cfg/text_cfg/hf_model_name": "roberta-base",
    "model_cfg/text_cfg/hf_tokenizer_name": "bert-base-uncased",
    "model_cfg/text_cfg/tokenizer_mode": "clips",
    "model_cfg/text_cfg/tokenizer_kwargs": {"clean": "canonicalize"},
    "preprocess_cfg/interpolation": "nearest",
    "preprocess_cfg/resize_mode": "crop",
    "preprocess_cfg/mode": "L",
    "preprocess_cfg/surprise": 1,
}


@pytest.mark.parametrize("path", OPEN_CLIP_REFUSALS)
def test_open_clip_settings_that_hfclip_cannot_build_are_named(path: str) -> None:
    value = OPEN_CLIP_REFUSALS[path]
    with pytest.raises(ConfigError) as caught:
        config_from_open_clip(changed(TIMM_OPENAI, path, value))
    message = str(caught.value)
    assert message.startswith(f"{path.replace('/', '.')} is "), message
    assert ", but in hfclip " in message
    assert message.endswith(" Load this model with open_clip instead.")


def test_an_error_names_the_found_and_the_expected_value() -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_open_clip(changed(TIMM_OPENAI, "model_cfg/vision_cfg/ls_init_value", 0.1))
    assert str(caught.value) == (
        "model_cfg.vision_cfg.ls_init_value is 0.1, but in hfclip blocks have no layer scale. "
        "Load this model with open_clip instead."
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_cfg", None, "model_cfg is None, not a JSON object"),
        ("model_cfg/vision_cfg", [], "model_cfg.vision_cfg is \\[\\], not a JSON object"),
        ("model_cfg/text_cfg", None, "model_cfg.text_cfg is None, not a JSON object"),
        ("preprocess_cfg", "bicubic", "preprocess_cfg is 'bicubic', not a JSON object"),
        ("model_cfg/embed_dim", None, "embed_dim is None; it must be an integer"),
        ("model_cfg/vision_cfg/layers", [3, 4, 6], "vision_layers has 3 stages"),
        ("model_cfg/vision_cfg/image_size", [224], "image_resolution is \\[224\\]"),
        ("model_cfg/text_cfg/width", "512", "transformer_width is '512'"),
        ("preprocess_cfg/mean", 0.5, "image_mean is 0.5"),
        ("model_cfg/vision_cfg/mlp_ratio", 1e-4, "vision_mlp_width is 0; it must be between"),
        *(
            (f"model_cfg/{tower}/mlp_ratio", value, rf"{tower}\.mlp_ratio is .*a number above 0")
            for tower in ("vision_cfg", "text_cfg")
            for value in (None, "4", True, [4], 0, -4.0, 1001, math.nan, math.inf, 10**400)
        ),
    ],
)
def test_a_malformed_open_clip_file_is_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_open_clip(changed(TIMM_OPENAI, path, value))


@pytest.mark.parametrize(
    ("width", "ratio", "units"),
    [(1408, 4.3637, 6144), (1664, 4.9231, 8192), (1792, 8.5715, 15360), (100, 4.35, 434)],
    ids=["ViT-g-14", "ViT-bigG-14", "ViT-e-14", "rounded down"],
)
def test_the_mlp_ratios_of_open_clip_are_rounded_as_it_rounds_them(
    width: int, ratio: float, units: int
) -> None:
    values = changed(TIMM_OPENAI, "model_cfg/vision_cfg", {"width": width, "mlp_ratio": ratio})
    values["model_cfg"]["vision_cfg"]["head_width"] = width // 2
    config = config_from_open_clip(values)
    assert (config.vision_mlp_width, config.transformer_mlp_width) == (units, None)
    values = changed(TIMM_OPENAI, "model_cfg/text_cfg", {"width": width, "mlp_ratio": ratio})
    values["model_cfg"]["text_cfg"]["heads"] = 2
    config = config_from_open_clip(values)
    assert (config.vision_mlp_width, config.transformer_mlp_width) == (None, units)


def test_a_resnet_of_open_clip_has_no_mlp_whatever_its_ratio() -> None:
    values = changed(TIMM_RN50, "model_cfg/vision_cfg/mlp_ratio", 4.9231)
    assert config_from_open_clip(values) == config_from_open_clip(json.loads(TIMM_RN50))


def ratio_for(units: int, width: int) -> float:
    """Returns the ratio that is written for a text tower."""
    config = ClipConfig(8, 32, 1, 64, 32, 4, 8, width, 1, 1, transformer_mlp_width=units)
    written = config_to_open_clip(config)["model_cfg"]
    assert "mlp_ratio" not in written["vision_cfg"]
    ratio: float = written["text_cfg"]["mlp_ratio"]
    return ratio


def test_open_clip_computes_each_mlp_width_from_the_ratio_that_is_written() -> None:
    for width in range(1, 70):
        for units in range(1, 7 * width):
            if units != 4 * width:
                assert int(width * ratio_for(units, width)) == units
    for width in (384, 512, 768, 1000, 1280, 1408, 1664, 1792, 4093, 8192):
        for units in range(width, 15 * width, width // 7 + 1):
            if units != 4 * width:
                assert int(width * ratio_for(units, width)) == units


def test_the_ratio_that_is_written_is_the_shortest_decimal_number() -> None:
    assert ratio_for(8192, 1664) == 4.9231
    assert ratio_for(435, 100) == 4.351  # 100 * 4.35 is less than 435 in floating point
    assert ratio_for(6144, 1408) == 4.364
    assert ratio_for(3072, 512) == 6
    for width, units in ((1664, 8192), (100, 435), (1408, 6144), (1000, 333), (768, 3073)):
        _, decimals = str(float(ratio_for(units, width))).split(".")
        scale = 10 ** (len(decimals) - 1)
        shorter = (step / scale for step in range(20 * scale))
        assert not [ratio for ratio in shorter if int(width * ratio) == units]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPENAI_TRANSFORMERS, VIT_B_32),
        (OPENAI_LARGE, ClipConfig(768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12)),
        (LAION_TRANSFORMERS, GELU_B_32),
    ],
    ids=["ViT-B/32", "ViT-L/14", "laion B/32"],
)
def test_published_transformers_files_are_read(text: str, expected: ClipConfig) -> None:
    assert config_from_transformers(json.loads(text), json.loads(OPENAI_PREPROCESSOR)) == expected
    assert config_from_transformers(json.loads(text), None) == expected


def test_missing_settings_of_a_transformers_file_have_their_defaults() -> None:
    assert config_from_transformers({"model_type": "clip"}, {}) == VIT_B_32
    assert config_from_transformers({"model_type": "clip", "text_config": None}) == VIT_B_32


def test_the_older_section_of_a_tower_replaces_the_newer_section() -> None:
    values = {
        "model_type": "clip",
        "text_config": {"hidden_size": 64, "intermediate_size": 256, "vocab_size": 600},
        "text_config_dict": {"num_hidden_layers": 3},
    }
    assert config_from_transformers(values) == dataclasses.replace(VIT_B_32, transformer_layers=3)
    assert config_from_transformers({**values, "text_config_dict": {}}) == VIT_B_32


def test_an_image_size_given_by_both_sides_is_accepted_when_square() -> None:
    values = changed(OPENAI_TRANSFORMERS, "vision_config/image_size", [224, 224])
    assert config_from_transformers(values) == VIT_B_32


@pytest.mark.parametrize("token", [2, 49407])
def test_the_end_token_is_openais_if_the_file_says_2(token: int) -> None:
    values = changed(OPENAI_TRANSFORMERS, "text_config/eos_token_id", token)
    assert config_from_transformers(values) == VIT_B_32


def test_a_towers_own_projection_dim_is_not_read() -> None:
    values = changed(OPENAI_TRANSFORMERS, "projection_dim", 1024)
    assert config_from_transformers(values).embed_dim == 1024


ONE_STACK = {
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-6,
    "model_type": "siglip_text_model",
    "pruned_heads": {"0": [1]},
    "quantization_config": {"bits": 4},
}
TRANSFORMERS_REFUSALS = {
    "model_type": "unheard_of",
    "architectures": ["CLIPForSomethingElse"],
    "auto_map": {"AutoModel": "modeling.Model"},
    "quantization_config": {"bits": 4},
    **{f"text_config/{key}": value for key, value in ONE_STACK.items()},
    "text_config/eos_token_id": 102,
    **{f"vision_config/{key}": value for key, value in ONE_STACK.items()},
    "vision_config/num_channels": 4,
    "vision_config/image_size": [224, 336],
    "vision_config/patch_size": [32, 16],
}


@pytest.mark.parametrize("path", TRANSFORMERS_REFUSALS)
def test_transformers_settings_that_hfclip_cannot_build_are_named(path: str) -> None:
    value = TRANSFORMERS_REFUSALS[path]
    with pytest.raises(ConfigError) as caught:
        config_from_transformers(changed(OPENAI_TRANSFORMERS, path, value))
    message = str(caught.value)
    assert message.startswith(f"{path.replace('/', '.')} is "), message
    assert ", but in hfclip " in message
    assert message.endswith(" Load this model with transformers instead.")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("vision_config/hidden_act", "gelu", "both towers have the same activation"),
        ("vision_config/num_attention_heads", 0, "num_attention_heads is 0, which does not divide"),
        ("vision_config/num_attention_heads", 7, "does not divide the hidden_size 768"),
        ("vision_config/num_attention_heads", "12", "num_attention_heads is '12'"),
        ("vision_config/hidden_size", None, "the hidden_size None"),
        (
            "text_config/num_attention_heads",
            7,
            "transformer_width is 512; it must be a multiple of 7,",
        ),
        ("text_config/vocab_size", 49408.5, "vocab_size is 49408.5"),
        ("text_config", "clip", "text_config is 'clip', not a JSON object"),
        ("vision_config_dict", [], "vision_config is \\[\\], not a JSON object"),
        ("projection_dim", None, "embed_dim is None"),
        ("text_config/intermediate_size", None, r"text_config\.intermediate_size is None"),
        ("vision_config/intermediate_size", None, r"vision_config\.intermediate_size is None"),
        ("vision_config/intermediate_size", 3072.5, "vision_mlp_width is 3072.5; it must be an"),
        ("text_config/intermediate_size", 0, "transformer_mlp_width is 0; it must be between"),
    ],
)
def test_a_malformed_transformers_file_is_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_transformers(changed(OPENAI_TRANSFORMERS, path, value))


def test_the_default_mlp_width_of_transformers_does_not_follow_the_towers_width() -> None:
    values = {"model_type": "clip", "text_config": {"hidden_size": 64}, "vision_config": {}}
    config = config_from_transformers(values)
    assert (config.transformer_width, config.transformer_mlp_width) == (64, 2048)
    config = config_from_transformers({**values, "vision_config": {"hidden_size": 384}})
    assert (config.vision_width, config.vision_mlp_width) == (384, 3072)


NEW_PREPROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": HALF,
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.1, 0.2, 0.3],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}


@pytest.mark.parametrize(
    "preprocessor",
    [
        NEW_PREPROCESSOR,
        {"processor_class": "CLIPProcessor", "image_processor": NEW_PREPROCESSOR},
        json.loads(OPENAI_PREPROCESSOR) | {"image_mean": HALF, "image_std": [0.1, 0.2, 0.3]},
    ],
    ids=["with sides", "inside a processor", "without sides"],
)
def test_the_mean_and_std_of_a_transformers_preprocessor_are_read(
    preprocessor: Mapping[str, Any],
) -> None:
    config = config_from_transformers(json.loads(OPENAI_TRANSFORMERS), preprocessor)
    assert config == dataclasses.replace(
        VIT_B_32, image_mean=(0.5, 0.5, 0.5), image_std=(0.1, 0.2, 0.3)
    )


PREPROCESSOR_REFUSALS: list[tuple[str, object]] = [
    ("image_processor_type", "SiglipImageProcessor"),
    ("feature_extractor_type", "ViTFeatureExtractor"),
    ("auto_map", {"AutoImageProcessor": "processing.Processor"}),
    ("do_resize", False),
    ("do_center_crop", False),
    ("do_center_crop", None),
    ("do_convert_rgb", False),
    ("do_rescale", False),
    ("do_normalize", None),
    ("do_pad", True),
    ("use_square_size", True),
    ("resample", 0),
    ("resample", 1),
    ("rescale_factor", 1 / 127.5),
    ("size", 223),
    ("size", "224"),
    ("size", [224, 256]),
    ("size", [224]),
    ("size", {}),
    ("size", {"shortest_edge": 200}),
    ("size", {"shortest_edge": 256.5}),
    ("size", {"height": 224, "width": 256}),
    ("size", {"height": 224}),
    ("size", {"max_height": 224, "max_width": 224}),
    ("size", {"longest_edge": 224}),
    ("size", {"shortest_edge": 224, "longest_edge": 448}),
    ("crop_size", 336),
    ("crop_size", {"height": 224, "width": 336}),
    ("crop_size", {"height": 224}),
]


@pytest.mark.parametrize(("key", "value"), PREPROCESSOR_REFUSALS)
def test_an_unsupported_preprocessor_setting_is_named(key: str, value: object) -> None:
    preprocessor = {**NEW_PREPROCESSOR, key: value}
    with pytest.raises(ConfigError) as caught:
        config_from_transformers(json.loads(OPENAI_TRANSFORMERS), preprocessor)
    message = str(caught.value)
    assert message.startswith(f"preprocessor.{key} is "), message
    assert message.endswith(" Load this model with transformers instead.")


def test_the_default_preprocessor_size_is_refused_for_a_larger_model() -> None:
    values = changed(OPENAI_TRANSFORMERS, "vision_config/image_size", 352)
    with pytest.raises(
        ConfigError,
        match=r"size is 224, but in hfclip .* at least 352, the model's size",
    ):
        config_from_transformers(values, {})
    with pytest.raises(
        ConfigError, match="crop_size is 224, but in hfclip it must be height and width 352"
    ):
        config_from_transformers(values, {"size": 352})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"resample": 2}, {"interpolation": "bilinear"}),
        ({"size": 256}, {"resize_resolution": 256}),
        ({"size": {"shortest_edge": 256}}, {"resize_resolution": 256}),
        ({"size": {"height": 224, "width": 224}}, {"resize_mode": "squash"}),
        ({"size": [224, 224], "crop_size": [224, 224]}, {"resize_mode": "squash"}),
        (
            {"size": {"width": 224, "height": 224, "shortest_edge": None}, "do_center_crop": False},
            {"resize_mode": "squash"},
        ),
        (
            {"size": {"height": 256, "width": 256}},
            {"resize_mode": "squash", "resize_resolution": 256},
        ),
        (
            {"do_normalize": False},
            {"image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)},
        ),
    ],
)
def test_the_resizing_of_a_transformers_preprocessor_is_read(
    settings: dict[str, object], expected: dict[str, Any]
) -> None:
    preprocessor = {**NEW_PREPROCESSOR, "image_mean": MEAN, "image_std": STD, **settings}
    config = config_from_transformers(json.loads(OPENAI_TRANSFORMERS), preprocessor)
    assert config == dataclasses.replace(VIT_B_32, **expected)


def test_the_crop_of_a_transformers_preprocessor_that_is_off_is_not_read() -> None:
    settings = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "crop_size": 512}
    config = config_from_transformers(json.loads(OPENAI_TRANSFORMERS), settings)
    assert config == dataclasses.replace(VIT_B_32, resize_mode="squash")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"resize_mode": "squash"}, {"resize_mode": "squash"}),
        ({"interpolation": "bilinear"}, {"interpolation": "bilinear"}),
        ({"interpolation": "random"}, {}),
        ({"interpolation": None, "resize_mode": None, "fill_color": None, "size": None}, {}),
        ({"fill_color": [1, 2, 3]}, {}),
        ({"resize_mode": "longest"}, {"resize_mode": "longest"}),
        (
            {"resize_mode": "longest", "fill_color": 128},
            {"resize_mode": "longest", "fill_color": 128},
        ),
    ],
)
def test_the_resizing_of_an_open_clip_file_is_read(
    section: dict[str, object], expected: dict[str, Any]
) -> None:
    values = json.loads(TIMM_OPENAI)
    values["preprocess_cfg"] |= section
    assert config_from_open_clip(values) == dataclasses.replace(VIT_B_32, **expected)


def test_a_fill_color_of_three_channels_is_refused_where_it_applies() -> None:
    section = {"resize_mode": "longest", "fill_color": [1, 2, 3]}
    with pytest.raises(ConfigError, match=r"fill_color is \[1, 2, 3\]; it must be an integer"):
        config_from_open_clip(changed(TIMM_OPENAI, "preprocess_cfg", section))


RESIZINGS: list[dict[str, Any]] = [
    {"interpolation": "bilinear"},
    {"resize_mode": "squash"},
    {"resize_mode": "squash", "interpolation": "bilinear"},
]
LONGEST: dict[str, Any] = {"resize_mode": "longest", "fill_color": 128}
CROPPED: dict[str, Any] = {"resize_resolution": 96}


@pytest.mark.parametrize("resizing", [*RESIZINGS, LONGEST], ids=str)
def test_the_resizing_survives_a_round_trip_in_open_clips_layout(resizing: dict[str, Any]) -> None:
    config = dataclasses.replace(ODD_VIT, **resizing)
    assert config_from_open_clip(json.loads(json.dumps(config_to_open_clip(config)))) == config


@pytest.mark.parametrize("resizing", [*RESIZINGS, CROPPED, RESIZINGS[1] | CROPPED], ids=str)
def test_the_resizing_survives_a_round_trip_in_transformers_layout(
    resizing: dict[str, Any],
) -> None:
    config = dataclasses.replace(ODD_VIT, **resizing)
    values, preprocessor = json.loads(json.dumps(config_to_transformers(config)))
    assert config_from_transformers(values, preprocessor) == config


def test_a_layout_refuses_a_resizing_that_it_cannot_describe() -> None:
    with pytest.raises(ConfigError) as caught:
        config_to_transformers(dataclasses.replace(ODD_VIT, **LONGEST))
    assert str(caught.value) == (
        "resize_mode is 'longest', but transformers' CLIPImageProcessor does not pad an image to a "
        "square. Write the layout of hfclip or of open_clip instead."
    )
    with pytest.raises(ConfigError) as caught:
        config_to_open_clip(dataclasses.replace(ODD_VIT, **CROPPED))
    assert str(caught.value) == (
        "resize_resolution is 96, but open_clip resizes an image to the model's size, 48. Write "
        "hfclip's layout instead, or transformers' for a ViT."
    )


@pytest.mark.parametrize("name", RELEASES)
def test_every_release_survives_a_round_trip_in_open_clips_layout(name: str) -> None:
    config = RELEASES[name].config
    written = config_to_open_clip(config)
    assert config_from_open_clip(json.loads(json.dumps(written))) == config
    assert written == json.loads(json.dumps(written))


@pytest.mark.parametrize("config", [ODD_VIT, ODD_RESNET], ids=["ViT", "ResNet"])
def test_every_setting_survives_a_round_trip_in_open_clips_layout(config: ClipConfig) -> None:
    assert config_from_open_clip(config_to_open_clip(config)) == config


@pytest.mark.parametrize(
    "config",
    [ODD_VIT, *(release.config for release in RELEASES.values() if not release.config.is_resnet)],
)
def test_every_vit_survives_a_round_trip_in_transformers_layout(config: ClipConfig) -> None:
    values, preprocessor = json.loads(json.dumps(config_to_transformers(config)))
    assert config_from_transformers(values, preprocessor) == config
    assert config_to_transformers(config) == (values, preprocessor)


def test_the_transformers_files_equal_those_that_openai_published() -> None:
    values, preprocessor = config_to_transformers(VIT_B_32)
    published = json.loads(OPENAI_TRANSFORMERS)
    published["text_config"]["eos_token_id"] = 49407  # hfclip corrects this value
    for name in ("text_config", "vision_config"):
        section = values.pop(name)
        assert section == {key: published[name][key] for key in section}
    assert values.pop("dtype") == "float32"  # the default dtype of transformers
    assert values == {key: published[key] for key in values}
    expected = {**NEW_PREPROCESSOR, "image_mean": MEAN, "image_std": STD}
    assert preprocessor == expected


def test_the_open_clip_file_equals_the_one_that_timm_published() -> None:
    written = config_to_open_clip(VIT_B_32)
    assert written["model_cfg"]["vision_cfg"].pop("head_width") == 64
    assert written == json.loads(TIMM_OPENAI)


def test_a_small_vocabulary_is_written_with_its_highest_id_as_end_token() -> None:
    values, _ = config_to_transformers(ODD_VIT)
    assert values["text_config"]["eos_token_id"] == 2


def test_a_resnet_is_not_written_for_transformers() -> None:
    with pytest.raises(ConfigError, match="ResNet, but transformers' CLIP supports only a ViT"):
        config_to_transformers(ODD_RESNET)


def test_the_layout_of_a_config_json_is_detected_by_its_content() -> None:
    ours, theirs = ODD_VIT.to_dict(), json.loads(OPENAI_TRANSFORMERS)
    assert config_from_json(ours) == ODD_VIT
    assert config_from_json({**ours, "model_type": "clip"}) == ODD_VIT
    assert config_from_json(theirs) == VIT_B_32
    assert config_from_json(theirs, NEW_PREPROCESSOR).image_mean == (0.5, 0.5, 0.5)
    kinds = [
        (is_hfclip(values), is_transformers_clip(values))
        for values in (ours, theirs, json.loads(TIMM_TOWER), json.loads(TIMM_OPENAI), {})
    ]
    assert kinds == [(True, False), (False, True), *[(False, False)] * 3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (json.loads(TIMM_TOWER), "holds pretrained_cfg, so it is timm's, for an image tower only"),
        (json.loads(TIMM_OPENAI), "holds model_cfg, so it is open_clip's"),
        (
            {"model_type": "siglip"},
            r"model_type is 'siglip' \(SigLIP\), but .* Load this model with transf",
        ),
        ({"model_type": "clip_vision_model"}, "model_type is 'clip_vision_model'"),
        ({"embed_dim": 4}, "lacks image_resolution"),
    ],
)
def test_a_config_json_of_neither_layout_is_named(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_json(values)


def weights() -> dict[str, torch.Tensor]:
    """Returns a model with one block per tower, width 4 and distinct numbers."""
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "positional_embedding": (3, 4),
        "text_projection": (4, 2),
        "token_embedding.weight": (5, 4),
        "ln_final.weight": (4,),
        "ln_final.bias": (4,),
        "visual.class_embedding": (4,),
        "visual.positional_embedding": (2, 4),
        "visual.proj": (4, 2),
        "visual.conv1.weight": (4, 3, 2, 2),
        "visual.ln_pre.weight": (4,),
        "visual.ln_pre.bias": (4,),
        "visual.ln_post.weight": (4,),
        "visual.ln_post.bias": (4,),
    }
    for stack in ("transformer.resblocks.0.", "visual.transformer.resblocks.10."):
        shapes |= {
            f"{stack}attn.in_proj_weight": (12, 4),
            f"{stack}attn.in_proj_bias": (12,),
            f"{stack}attn.out_proj.weight": (4, 4),
            f"{stack}attn.out_proj.bias": (4,),
            f"{stack}ln_1.weight": (4,),
            f"{stack}mlp.c_fc.weight": (16, 4),
            f"{stack}mlp.c_proj.bias": (4,),
            f"{stack}ln_2.bias": (4,),
        }
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_weights_survive_a_round_trip_through_transformers_names() -> None:
    ours = weights()
    back = from_transformers(to_transformers(ours))
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_each_weight_has_the_name_that_transformers_gives_it() -> None:
    ours = weights()
    theirs = to_transformers(ours)
    layer = "vision_model.encoder.layers.10."
    block = "visual.transformer.resblocks.10."
    expected = {
        "visual_projection.weight": ours["visual.proj"].t(),
        "text_projection.weight": ours["text_projection"].t(),
        "vision_model.pre_layrnorm.weight": ours["visual.ln_pre.weight"],
        "text_model.final_layer_norm.bias": ours["ln_final.bias"],
        f"{layer}self_attn.q_proj.weight": ours[f"{block}attn.in_proj_weight"][:4],
        f"{layer}self_attn.k_proj.weight": ours[f"{block}attn.in_proj_weight"][4:8],
        f"{layer}self_attn.v_proj.bias": ours[f"{block}attn.in_proj_bias"][8:],
        f"{layer}mlp.fc1.weight": ours[f"{block}mlp.c_fc.weight"],
        "text_model.encoder.layers.0.layer_norm2.bias": ours["transformer.resblocks.0.ln_2.bias"],
    }
    assert all(torch.equal(theirs[name], tensor) for name, tensor in expected.items())
    assert len(theirs) == len(ours) + 8  # four attention tensors become three each


def test_position_ids_are_dropped_and_unknown_names_are_kept() -> None:
    tensors = {
        "text_model.embeddings.position_ids": torch.arange(77),
        "vision_model.embeddings.position_ids": torch.arange(50),
        "classifier.weight": torch.ones(2),
    }
    assert list(from_transformers(tensors)) == ["classifier.weight"]
