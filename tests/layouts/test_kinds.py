"""Models of other kinds are refused by what makes them different, with what loads them."""

import json
from typing import Any

import pytest

from hfclip.errors import ConfigError
from hfclip.layouts.detect import config_from_json
from hfclip.layouts.kinds import KINDS, PARTS
from hfclip.layouts.open_clip import config_from_open_clip

TWO_TOWERS = "a CLIP has two towers, each with a projection, and no other part"
CAUSAL = "the text tower is a causal transformer with OpenAI's names"
TOKENIZER = "the tokenizer is OpenAI's"
IMAGE_TOWER = "the image tower is a ViT or a ResNet with OpenAI's names"
# A configuration's head -> the setting with its value, hfclip's rule, and the loader.
TRANSFORMERS: list[tuple[dict[str, Any], str, str, str]] = [
    (
        {"model_type": "clip_vision_model", "architectures": ["CLIPVisionModelWithProjection"]},
        "model_type is 'clip_vision_model' (the image tower of a CLIP alone)",
        TWO_TOWERS,
        "transformers' CLIPVisionModelWithProjection",
    ),
    (
        {"model_type": "clip_text_model", "architectures": None},
        "model_type is 'clip_text_model' (the text tower of a CLIP alone)",
        TWO_TOWERS,
        "transformers' CLIPTextModel",
    ),
    (
        {"model_type": "clip", "architectures": ["CLIPTextModelWithProjection"]},
        "architectures is ['CLIPTextModelWithProjection'] (the text tower of a CLIP alone)",
        TWO_TOWERS,
        "transformers' CLIPTextModelWithProjection",
    ),
    (
        {"model_type": "siglip", "architectures": ["SiglipModel"], "text_config": {}},
        "model_type is 'siglip' (SigLIP)",
        "an image tower returns its class token, and the logits have no bias",
        "transformers' SiglipModel",
    ),
    (
        {"model_type": "metaclip_2", "architectures": ["MetaClip2Model"]},
        "model_type is 'metaclip_2' (MetaCLIP 2)",
        TOKENIZER,
        "transformers' MetaClip2Model",
    ),
    (
        {"model_type": "blip", "architectures": ["BlipForConditionalGeneration"]},
        "model_type is 'blip' (BLIP)",
        CAUSAL,
        "transformers' BlipForConditionalGeneration",
    ),
    (
        {"model_type": "chinese_clip"},
        "model_type is 'chinese_clip' (Chinese-CLIP)",
        CAUSAL,
        "transformers' ChineseCLIPModel",
    ),
    (
        {"model_type": "align", "architectures": ["one", "two"]},
        "model_type is 'align' (ALIGN)",
        IMAGE_TOWER,
        "transformers' AlignModel",
    ),
    (
        {
            "model_type": "clip",
            "architectures": ["CLIPTextModel"],
            "auto_map": {"AutoModel": "modeling_evaclip.EvaCLIPModel"},
        },
        "auto_map is {'AutoModel': 'modeling_evaclip.EvaCLIPModel'}",
        "code from a repository is not run",
        "transformers",
    ),
    (
        {"model_type": "of-tomorrow", "architectures": ["TomorrowModel"]},
        "model_type is 'of-tomorrow'",
        "only the model type 'clip' is supported",
        "transformers",
    ),
]


@pytest.mark.parametrize(
    ("values", "found", "rule", "loader"), TRANSFORMERS, ids=lambda value: str(value)[:30]
)
def test_a_transformers_model_of_another_kind_is_named_with_its_loader(
    values: dict[str, Any], found: str, rule: str, loader: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_json(values)
    assert str(caught.value) == (
        f"{found}, but in hfclip {rule}. Load this model with {loader} instead."
    )


@pytest.mark.parametrize("model_type", KINDS)
def test_every_kind_of_model_is_refused_in_one_line(model_type: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_json({"model_type": model_type, "architectures": ["injected code\n"]})
    message = str(caught.value)
    assert KINDS[model_type].name in message
    assert message.endswith(f" with transformers' {KINDS[model_type].loader} instead.")
    assert "\n" not in message


@pytest.mark.parametrize("architecture", PARTS)
def test_a_part_of_a_clip_is_named(architecture: str) -> None:
    with pytest.raises(ConfigError, match=PARTS[architecture]):
        config_from_json({"model_type": "clip", "architectures": [architecture]})


CLIP_TEXT: dict[str, Any] = {
    "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12,
}  # fmt: skip
CLIP_VISION: dict[str, Any] = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}
SIGLIP_TEXT = CLIP_TEXT | {
    "context_length": 64,
    "vocab_size": 32000,
    "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}
POOLING = "the output of a tower is that of its class or end token, after the LayerNorm"


def timm(name: str, **rest: object) -> dict[str, object]:
    return {"timm_model_name": name, "timm_model_pretrained": False, "timm_pool": "token", **rest}


# What a model is -> its model_cfg, the setting and value in the message, and hfclip's rule.
OPEN_CLIP: dict[str, tuple[dict[str, Any], str, str]] = {
    "SigLIP": (
        {
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": timm("vit_base_patch16_siglip_224", timm_pool="map", timm_proj="none"),
            "text_cfg": SIGLIP_TEXT,
        },
        "vision_cfg.timm_model_name is 'vit_base_patch16_siglip_224' (as in SigLIP)",
        IMAGE_TOWER,
    ),
    "EVA-CLIP": (
        {
            "custom_text": True,
            "vision_cfg": timm("eva02_base_patch16_clip_224"),
            "text_cfg": CLIP_TEXT,
        },
        "vision_cfg.timm_model_name is 'eva02_base_patch16_clip_224' (as in EVA-CLIP)",
        IMAGE_TOWER,
    ),
    "MobileCLIP": (
        {
            "custom_text": True,
            "vision_cfg": timm("fastvit_mci1", timm_drop=0.0),
            "text_cfg": CLIP_TEXT | {"no_causal_mask": True},
        },
        "vision_cfg.timm_model_name is 'fastvit_mci1' (as in MobileCLIP)",
        IMAGE_TOWER,
    ),
    "ViTamin": (
        {
            "custom_text": True,
            "vision_cfg": timm("vitamin_large_256", timm_proj="linear"),
            "text_cfg": CLIP_TEXT,
        },
        "vision_cfg.timm_model_name is 'vitamin_large_256' (as in ViTamin)",
        IMAGE_TOWER,
    ),
    "any other timm tower": (
        {"vision_cfg": timm("swin_base_patch4_window7_224"), "text_cfg": CLIP_TEXT},
        "vision_cfg.timm_model_name is 'swin_base_patch4_window7_224', but",
        IMAGE_TOWER,
    ),
    "CoCa": (
        {
            "custom_text": True,
            "vision_cfg": CLIP_VISION | {"attentional_pool": True, "output_tokens": True},
            "text_cfg": CLIP_TEXT | {"embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {"layers": 12},
        },
        "multimodal_cfg is {'layers': 12}",
        "a CLIP has two towers, and no decoder as a CoCa has",
    ),
    "NLLB-CLIP": (
        {
            "vision_cfg": CLIP_VISION,
            "text_cfg": {
                "hf_model_name": "facebook/nllb-200-distilled-600M",
                "hf_tokenizer_name": "facebook/nllb-200-distilled-600M",
                "hf_pooler_type": "cls_pooler",
            },
        },
        "text_cfg.hf_model_name is 'facebook/nllb-200-distilled-600M' (as in NLLB-CLIP)",
        CAUSAL,
    ),
    "a text tower of transformers": (
        {
            "quick_gelu": True,
            "vision_cfg": CLIP_VISION,
            "text_cfg": {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base"},
        },
        "text_cfg.hf_model_name is 'roberta-base', but",
        CAUSAL,
    ),
    "MetaCLIP 2": (
        {
            "vision_cfg": CLIP_VISION,
            "text_cfg": CLIP_TEXT
            | {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2},
        },
        "text_cfg.hf_tokenizer_name is 'facebook/xlm-v-base' (as in MetaCLIP 2)",
        TOKENIZER,
    ),
    "CLIPA": (
        {
            "vision_cfg": CLIP_VISION | {"no_ln_pre": True, "pool_type": "avg"},
            "text_cfg": CLIP_TEXT
            | {
                "hf_tokenizer_name": "bert-base-uncased",
                "tokenizer_kwargs": {"strip_sep_token": True},
                "pool_type": "last",
                "no_causal_mask": True,
            },
        },
        "text_cfg.hf_tokenizer_name is 'bert-base-uncased', but",
        TOKENIZER,
    ),
    "no causal mask": (
        {
            "custom_text": True,
            "vision_cfg": CLIP_VISION | {"pool_type": "avg"},
            "text_cfg": CLIP_TEXT | {"no_causal_mask": True, "aaa": 1},
        },
        "text_cfg.no_causal_mask is True, but",
        CAUSAL,
    ),
    "attention pooling": (
        {"vision_cfg": CLIP_VISION | {"attentional_pool": True}, "text_cfg": CLIP_TEXT, "aaa": 1},
        "vision_cfg.attentional_pool is True, but",
        POOLING,
    ),
    "average pooling": (
        {
            "vision_cfg": CLIP_VISION | {"pool_type": "avg", "final_ln_after_pool": True},
            "text_cfg": CLIP_TEXT | {"aaa": 1},
        },
        "vision_cfg.pool_type is 'avg', but",
        POOLING,
    ),
    "a logit bias": (
        {"vision_cfg": CLIP_VISION, "text_cfg": CLIP_TEXT, "init_logit_bias": -10, "aaa": 1},
        "init_logit_bias is -10, but",
        "logits have no bias",
    ),
    "something of tomorrow": (
        {"vision_cfg": CLIP_VISION, "text_cfg": CLIP_TEXT | {"zzz": 1, "rotary": True}},
        "text_cfg.rotary is True, but",
        "this setting is unknown",
    ),
}


@pytest.mark.parametrize("name", OPEN_CLIP)
def test_an_open_clip_model_is_refused_by_its_most_telling_setting(name: str) -> None:
    model, found, rule = OPEN_CLIP[name]
    values = json.loads(json.dumps({"model_cfg": {"embed_dim": 512, **model}}))
    with pytest.raises(ConfigError) as caught:
        config_from_open_clip(values)
    message = str(caught.value)
    assert message.startswith(f"model_cfg.{found}"), message
    assert message.endswith(f" in hfclip {rule}. Load this model with open_clip instead."), message
    assert "\n" not in message


@pytest.mark.parametrize("key", ["text_cfg", "vision_cfg", None])
def test_a_malformed_section_is_reported_as_such(key: str | None) -> None:
    model: Any = {"embed_dim": 512, "vision_cfg": CLIP_VISION, "text_cfg": CLIP_TEXT}
    values = {"model_cfg": [] if key is None else {**model, key: "roberta"}}
    with pytest.raises(ConfigError, match="not a JSON object"):
        config_from_open_clip(values)
