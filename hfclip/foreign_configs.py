"""What open_clip's and transformers' configurations mean as a `ClipConfig`.

Both describe more architectures than hfclip builds. A key that is known to change nothing is passed
over, one at its default too, and everything else is refused: weights of another architecture can
have the same names and shapes.
"""

from collections.abc import Collection, Mapping
from typing import Any

from hfclip.config import OPENAI_MEAN, OPENAI_STD, ClipConfig
from hfclip.errors import ConfigError

# open_clip's name -> ours.
_OPEN_CLIP_VISION = {
    "image_size": "image_resolution",
    "layers": "vision_layers",
    "width": "vision_width",
    "patch_size": "vision_patch_size",
    "head_width": "vision_head_width",
}
_OPEN_CLIP_TEXT = {
    "context_length": "context_length",
    "vocab_size": "vocab_size",
    "width": "transformer_width",
    "heads": "transformer_heads",
    "layers": "transformer_layers",
}
# What open_clip takes where a file is silent.
_OPEN_CLIP_VISION_DEFAULTS = {
    "image_size": 224,
    "layers": 12,
    "width": 768,
    "patch_size": 16,
    "head_width": 64,
}
_OPEN_CLIP_TEXT_DEFAULTS = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
}
# The one value at which each further key leaves the architecture as it is.
_OPEN_CLIP_VISION_PLAIN = {
    "mlp_ratio": 4.0,
    "ls_init_value": None,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "pool_type": "tok",
    "output_tokens": False,
    "act_kwargs": None,
    "norm_kwargs": None,
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "timm_model_name": None,
}
_OPEN_CLIP_TEXT_PLAIN = {
    "hf_tokenizer_name": None,
    "tokenizer_mode": None,
    "tokenizer_kwargs": None,
    "mlp_ratio": 4.0,
    "ls_init_value": None,
    "embed_cls": False,
    "pad_id": 0,
    "no_causal_mask": False,
    "final_ln_after_pool": False,
    "pool_type": "argmax",
    "proj_bias": False,
    "proj_type": "linear",
    "output_tokens": False,
    "act_kwargs": None,
    "norm_kwargs": None,
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "hf_model_name": None,
}
_OPEN_CLIP_MODEL_PLAIN = {
    "custom_text": False,
    "multimodal_cfg": None,
    "init_logit_bias": None,
    "nonscalar_logit_scale": False,
}
_OPEN_CLIP_PREPROCESS_PLAIN = {
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "mode": "RGB",
}
# Matter in training, to another program, or not without a key that is refused.
_OPEN_CLIP_IDLE = frozenset(
    {
        "patch_dropout",
        "attn_pooler_queries",
        "attn_pooler_heads",
        "init_logit_scale",
        "fill_color",
        "size",
        "eos_id",
    }
)
_OPEN_CLIP_IDLE_PREFIXES = ("timm_", "hf_")

# transformers' name -> ours.
_TRANSFORMERS_VISION = {
    "image_size": "image_resolution",
    "num_hidden_layers": "vision_layers",
    "hidden_size": "vision_width",
    "patch_size": "vision_patch_size",
}
_TRANSFORMERS_TEXT = {
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
    "hidden_size": "transformer_width",
    "num_attention_heads": "transformer_heads",
    "num_hidden_layers": "transformer_layers",
}
# What transformers takes where a file is silent; it writes only what differs.
_TRANSFORMERS_DEFAULTS: dict[str, dict[str, Any]] = {
    "text_config": {
        "max_position_embeddings": 77,
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 12,
        "hidden_act": "quick_gelu",
    },
    "vision_config": {
        "image_size": 224,
        "patch_size": 32,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "hidden_act": "quick_gelu",
    },
}
_PROJECTION_DEFAULT = 512
_TRANSFORMERS_PLAIN = {"layer_norm_eps": 1e-5, "num_channels": 3}
_PREPROCESSOR_PLAIN = {
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "resample": 3,  # Pillow's number for bicubic
}


def config_from_open_clip(values: Mapping[str, Any]) -> ClipConfig:
    """Reads the object of an open_clip_config.json.

    Raises:
        ConfigError: It is malformed, or describes a model that hfclip does not build.
    """
    model = dict(_section(values, "model_cfg"))
    preprocess = _section(values, "preprocess_cfg", required=False)
    vision, text = (_section(model, name) for name in ("vision_cfg", "text_cfg"))
    own = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
    _refuse_others(model, own, _OPEN_CLIP_MODEL_PLAIN, "model_cfg")
    _refuse_others(vision, _OPEN_CLIP_VISION, _OPEN_CLIP_VISION_PLAIN, "vision_cfg")
    _refuse_others(text, _OPEN_CLIP_TEXT, _OPEN_CLIP_TEXT_PLAIN, "text_cfg")
    _refuse_others(preprocess, {"mean", "std"}, _OPEN_CLIP_PREPROCESS_PLAIN, "preprocess_cfg")
    vision = {**_OPEN_CLIP_VISION_DEFAULTS, **vision}
    vision["image_size"] = _side(vision["image_size"])
    text = {**_OPEN_CLIP_TEXT_DEFAULTS, **text}
    return ClipConfig.from_dict(
        {
            "embed_dim": model.get("embed_dim"),
            **{ours: vision[theirs] for theirs, ours in _OPEN_CLIP_VISION.items()},
            **{ours: text[theirs] for theirs, ours in _OPEN_CLIP_TEXT.items()},
            "activation": "quick_gelu" if model.get("quick_gelu", False) else "gelu",
            "image_mean": preprocess.get("mean") or OPENAI_MEAN,
            "image_std": preprocess.get("std") or OPENAI_STD,
        }
    )


def config_to_open_clip(config: ClipConfig) -> dict[str, Any]:
    """The object of an open_clip_config.json; the inverse of the above."""
    values = config.to_dict()
    layers = values["vision_layers"]
    values["vision_layers"] = list(layers) if config.is_resnet else layers
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "quick_gelu": config.activation == "quick_gelu",
            "vision_cfg": {theirs: values[ours] for theirs, ours in _OPEN_CLIP_VISION.items()},
            "text_cfg": {theirs: values[ours] for theirs, ours in _OPEN_CLIP_TEXT.items()},
        },
        "preprocess_cfg": {"mean": list(config.image_mean), "std": list(config.image_std)},
    }


def config_from_transformers(
    values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> ClipConfig:
    """Reads the object of a transformers CLIP's config.json and preprocessor_config.json.

    `eos_token_id` is not read: in OpenAI's own it is wrong, and the end token is the highest id.

    Raises:
        ConfigError: It is malformed, or describes a model that hfclip does not build.
    """
    text, vision = (_transformers_section(values, name) for name in _TRANSFORMERS_DEFAULTS)
    activation, width, heads = (
        vision[key] for key in ("hidden_act", "hidden_size", "num_attention_heads")
    )
    if text["hidden_act"] != activation:
        raise _refusal("text_config.hidden_act", text["hidden_act"], f"{activation!r} twice")
    if not _is_multiple(width, heads):
        raise _refusal("vision_config.num_attention_heads", heads, f"a divisor of {width!r}")
    return ClipConfig.from_dict(
        {
            "embed_dim": values.get("projection_dim", _PROJECTION_DEFAULT),
            **{ours: vision[theirs] for theirs, ours in _TRANSFORMERS_VISION.items()},
            **{ours: text[theirs] for theirs, ours in _TRANSFORMERS_TEXT.items()},
            "activation": activation,
            "vision_head_width": width // heads,
            **_transformers_preprocess(preprocessor or {}, vision["image_size"]),
        }
    )


def config_to_transformers(config: ClipConfig) -> dict[str, Any]:
    """The object of a transformers config.json for a ViT; the inverse of the above."""
    values = config.to_dict()
    text = {key: values[ours] for key, ours in _TRANSFORMERS_TEXT.items()}
    vision = {key: values[ours] for key, ours in _TRANSFORMERS_VISION.items()}
    vision["num_attention_heads"] = config.vision_heads
    for section in (text, vision):
        section["intermediate_size"] = 4 * section["hidden_size"]
        section["hidden_act"] = config.activation
        section["projection_dim"] = config.embed_dim
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": config.embed_dim,
        "text_config": {**text, "bos_token_id": 49406, "eos_token_id": 49407},
        "vision_config": vision,
    }


def _section(values: Mapping[str, Any], name: str, *, required: bool = True) -> Mapping[str, Any]:
    section = values.get(name, None if required else {})
    if not isinstance(section, Mapping):
        raise ConfigError(
            f"The configuration holds no object named {name}; without it no model can be built."
        )
    return section


def _transformers_section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    # Older files hold what differs from the defaults under a second name, which wins.
    given, older = values.get(name) or {}, values.get(f"{name}_dict") or {}
    if not isinstance(given, Mapping) or not isinstance(older, Mapping):
        raise ConfigError(f"{name} is not an object; the file is not a CLIP's config.json.")
    section = {**_TRANSFORMERS_DEFAULTS[name], **given, **older}
    _refuse_values(section, _TRANSFORMERS_PLAIN, name)
    if section["intermediate_size"] != 4 * section["hidden_size"]:
        found = section["intermediate_size"]
        raise _refusal(f"{name}.intermediate_size", found, "four times hidden_size")
    return section


def _transformers_preprocess(values: Mapping[str, Any], side: object) -> dict[str, Any]:
    _refuse_values(values, _PREPROCESSOR_PLAIN, "preprocessor_config.json")
    for name in ("size", "crop_size"):
        wanted = values.get(name, side)
        sides = set(wanted.values()) if isinstance(wanted, Mapping) else {wanted}
        if sides != {side}:
            raise _refusal(f"preprocessor_config.json: {name}", wanted, f"{side!r}, the model's")
    return {
        "image_mean": values.get("image_mean") or OPENAI_MEAN,
        "image_std": values.get("image_std") or OPENAI_STD,
    }


def _refuse_others(
    section: Mapping[str, Any], own: Collection[str], plain: Mapping[str, Any], where: str
) -> None:
    """Refuses what is neither read, nor without effect, nor at the value that has none."""
    for key, value in section.items():
        idle = key in _OPEN_CLIP_IDLE or (
            key not in plain and key.startswith(_OPEN_CLIP_IDLE_PREFIXES)
        )
        if key in own or idle:  # type: ignore[operator]
            continue
        if key not in plain:
            raise _refusal(f"{where}.{key}", value, "no such key")
    _refuse_values(section, plain, where)


def _refuse_values(section: Mapping[str, Any], plain: Mapping[str, Any], where: str) -> None:
    for key, value in plain.items():
        if key in section and section[key] != value:
            raise _refusal(f"{where}.{key}", section[key], repr(value))


def _refusal(key: str, found: object, wanted: object) -> ConfigError:
    return ConfigError(
        f"{key} is {str(found)[:80]!r}; hfclip builds OpenAI's architecture alone, which has "
        f"{wanted}. Load this model with the library that it was made with."
    )


def _side(size: object) -> object:
    """224 of 224 or [224, 224]; anything else is left for `ClipConfig` to refuse."""
    square = isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1]
    return size[0] if square else size


def _is_multiple(width: object, heads: object) -> bool:
    whole = isinstance(width, int) and isinstance(heads, int) and heads > 0
    return whole and width % heads == 0  # type: ignore[operator]
