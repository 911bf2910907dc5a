"""open_clip's layout: `open_clip_config.json` with OpenAI's names of weights, read and written."""

from collections.abc import Iterator, Mapping
from itertools import count
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

from hfclip.config import OPENAI_MEAN, OPENAI_STD, ClipConfig
from hfclip.errors import ConfigError
from hfclip.layouts.files import OPEN_CLIP_CONFIG_FILE, OPEN_CLIP_WEIGHTS_FILE, Files, json_text
from hfclip.layouts.section import (
    ACTIVATION,
    ATTENTION,
    CHANNELS,
    FILTER,
    IMAGE,
    MLP,
    NORM,
    NOTHING,
    OFF,
    POOLING,
    RESIZE,
    SCALE,
    TEXT,
    TOKENIZER,
    Fixed,
    Section,
)

if TYPE_CHECKING:
    from torch import Tensor


_IN_EVERY_TOWER: dict[str, Fixed] = {
    "ls_init_value": ((None,), SCALE),
    "final_ln_after_pool": (OFF, POOLING),
    "output_tokens": (OFF, "a tower returns one vector"),
    "act_kwargs": (NOTHING, ACTIVATION),
    "norm_kwargs": (NOTHING, NORM),
    "block_type": ((None, "default"), "blocks are the same as OpenAI's"),
    "qk_norm": (OFF, ATTENTION),
    "scaled_cosine_attn": (OFF, ATTENTION),
    "scale_heads": (OFF, ATTENTION),
    "scale_attn_inner": (OFF, ATTENTION),
    "scale_attn": (OFF, ATTENTION),
    "scale_fc": (OFF, MLP),
}

_OPEN_CLIP_FILE = Section(
    "open_clip",
    "",
    {"model_cfg": ("model", None), "preprocess_cfg": ("preprocess", None)},
    {},
    frozenset(),
)
_MODEL_CFG = Section(
    "open_clip",
    "model_cfg.",
    {
        "embed_dim": ("embed_dim", None),
        "quick_gelu": ("quick_gelu", False),
        "vision_cfg": ("vision", None),
        "text_cfg": ("text", None),
    },
    {
        "quick_gelu": ((True, False), ACTIVATION),
        "custom_text": (OFF, TEXT),
        "multimodal_cfg": ((), "a CLIP has two towers, and no decoder as a CoCa has"),
        "init_logit_bias": ((None,), "logits have no bias"),
        # This only selects the scale's shape, () or (1,), which the weights show.
        "nonscalar_logit_scale": ((False, True, None), "the logit scale is one number"),
    },
    # The weights hold the scale. The other only selects the form of open_clip's results.
    frozenset({"init_logit_scale", "output_dict"}),
)
_VISION_CFG = Section(
    "open_clip",
    "model_cfg.vision_cfg.",
    {
        "image_size": ("image_resolution", 224),
        "layers": ("vision_layers", 12),
        "width": ("vision_width", 768),
        "patch_size": ("vision_patch_size", 16),
        "head_width": ("vision_head_width", 64),
    },
    {
        **_IN_EVERY_TOWER,
        "attentional_pool": (OFF, POOLING),
        "pool_type": (("tok",), POOLING),
        "pos_embed_type": (("learnable",), "positions are learned"),
        "no_ln_pre": (OFF, "the image tower has a LayerNorm before its blocks"),
        "timm_model_name": ((None,), IMAGE),
    },
    # For training, or for settings that are not accepted above; without them these do nothing.
    # `_mlp_width` reads mlp_ratio.
    frozenset({"mlp_ratio", "patch_dropout", "attn_pooler_queries", "attn_pooler_heads"})
    | {"timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias"}
    | {"timm_drop", "timm_drop_path"},
)
_TEXT_CFG = Section(
    "open_clip",
    "model_cfg.text_cfg.",
    {
        "context_length": ("context_length", 77),
        "vocab_size": ("vocab_size", 49_408),
        "width": ("transformer_width", 512),
        "heads": ("transformer_heads", 8),
        "layers": ("transformer_layers", 12),
    },
    {
        **_IN_EVERY_TOWER,
        "pool_type": (("argmax",), POOLING),
        "embed_cls": (OFF, POOLING),
        "no_causal_mask": (OFF, TEXT),
        "proj_bias": (OFF, "the text projection has no bias"),
        "proj_type": (("linear",), "the text projection is a matrix"),
        # If this key is present, even as null, open_clip builds another class.
        "hf_model_name": ((), TEXT),
        "hf_tokenizer_name": ((None, ""), TOKENIZER),
        "tokenizer_mode": ((None,), TOKENIZER),
        "tokenizer_kwargs": (NOTHING, TOKENIZER),
    },
    # `_mlp_width` reads mlp_ratio.
    frozenset({"mlp_ratio", "pad_id", "eos_id"})
    | {"hf_model_pretrained", "hf_proj_type", "hf_pooler_type"},
)
_PREPROCESS_CFG = Section(
    "open_clip",
    "preprocess_cfg.",
    {
        "mean": ("image_mean", None),
        "std": ("image_std", None),
        "interpolation": ("interpolation", None),
        "resize_mode": ("resize_mode", None),
        "fill_color": ("fill_color", None),
    },
    {
        "mode": (("RGB", None), CHANNELS),
        "interpolation": (("bicubic", "bilinear", "random", None), FILTER),
        "resize_mode": (("shortest", "longest", "squash", None), RESIZE),
    },
    # open_clip takes the size from the model.
    frozenset({"size"}),
)

# The settings that tell most about a model that hfclip does not load, the most telling first:
# the object of model_cfg that holds the setting, its section, and the setting.
_TELLING = (
    ("", _MODEL_CFG, "multimodal_cfg"),
    ("text_cfg", _TEXT_CFG, "hf_model_name"),
    ("vision_cfg", _VISION_CFG, "timm_model_name"),
    ("text_cfg", _TEXT_CFG, "hf_tokenizer_name"),
    ("text_cfg", _TEXT_CFG, "no_causal_mask"),
    ("vision_cfg", _VISION_CFG, "attentional_pool"),
    ("vision_cfg", _VISION_CFG, "pool_type"),
    ("text_cfg", _TEXT_CFG, "pool_type"),
    ("text_cfg", _TEXT_CFG, "embed_cls"),
)


def config_from_open_clip(values: Mapping[str, Any]) -> ClipConfig:
    """Converts the object of an `open_clip_config.json`.

    Raises:
        ConfigError: A setting is not supported; the message names it.
    """
    file = _OPEN_CLIP_FILE.read(values)
    _check_telling(file["model"])
    model = _MODEL_CFG.read(file["model"])
    vision, text = _VISION_CFG.read(model["vision"]), _TEXT_CFG.read(model["text"])
    if not isinstance(vision["vision_layers"], list | tuple):  # a ResNet has no MLP
        vision["vision_mlp_width"] = _mlp_width(
            _VISION_CFG, model["vision"], vision["vision_width"]
        )
    text["transformer_mlp_width"] = _mlp_width(_TEXT_CFG, model["text"], text["transformer_width"])
    return ClipConfig(
        embed_dim=model["embed_dim"],
        **vision,
        **text,
        activation="quick_gelu" if model["quick_gelu"] else "gelu",
        **_preprocess_from(file["preprocess"]),
    )


def _check_telling(model: object) -> None:
    """Raises the error for the most telling setting of a model that hfclip does not load."""
    parts = {"": model, **(model if isinstance(model, Mapping) else {})}
    for place, section, key in _TELLING:
        values = parts.get(place)
        if isinstance(values, Mapping):
            section.check(key, values)


def _preprocess_from(section: object) -> dict[str, Any]:
    read = _PREPROCESS_CFG.read({} if section is None else section)
    values = {name: value for name, value in read.items() if value is not None}
    if values.get("interpolation") == "random":  # random in training, bicubic otherwise
        del values["interpolation"]
    if values.get("resize_mode") != "longest":  # nothing is padded
        values.pop("fill_color", None)
    return {
        **values,
        "image_mean": read["image_mean"] or OPENAI_MEAN,
        "image_std": read["image_std"] or OPENAI_STD,
    }


def _preprocess_to(config: ClipConfig) -> dict[str, Any]:
    if config.resize_resolution is not None:
        raise ConfigError(
            f"resize_resolution is {config.resize_resolution}, but open_clip resizes an image to "
            f"the model's size, {config.image_resolution}. Write hfclip's layout instead, or "
            "transformers' for a ViT."
        )
    values = _PREPROCESS_CFG.write(config)
    if config.resize_mode != "longest":
        del values["fill_color"]
    return values


def config_to_open_clip(config: ClipConfig) -> dict[str, Any]:
    """Returns the object of an `open_clip_config.json`: the inverse of `config_from_open_clip`.

    Raises:
        ConfigError: Images are resized to another size than the model's before the crop.
    """
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "quick_gelu": config.activation == "quick_gelu",
            "vision_cfg": _VISION_CFG.write(config)
            | _mlp_ratio(config.vision_mlp_width, config.vision_width),
            "text_cfg": _TEXT_CFG.write(config)
            | _mlp_ratio(config.transformer_mlp_width, config.transformer_width),
        },
        "preprocess_cfg": _preprocess_to(config),
    }


_MAX_MLP_RATIO = 1_000


def _mlp_width(section: Section, values: Mapping[str, Any], width: object) -> int | None:
    """Returns the number of hidden units of a tower's MLPs, rounded as open_clip rounds it."""
    ratio = values.get("mlp_ratio", 4.0)
    is_number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
    if not is_number or not 0 < ratio <= _MAX_MLP_RATIO:
        raise ConfigError(
            f"{section.name}mlp_ratio is {shown(ratio)}; it must be a number above 0 and at most "
            f"{_MAX_MLP_RATIO:,}. Get the published file again."
        )
    # ClipConfig raises the error for a width that is not an integer.
    return int(width * ratio) if isinstance(width, int) else None


def _mlp_ratio(units: int | None, width: int) -> dict[str, float]:
    """Returns the setting for MLPs of another width than four times the tower's, else none.

    It is the shortest decimal number from which open_clip computes `units`.
    """
    if units is None:
        return {}
    return {"mlp_ratio": next(r for r in _ratios(units, width) if int(width * r) == units)}


def _ratios(units: int, width: int) -> Iterator[float]:
    """Yields units / width, rounded up to 0, 1, 2, ... decimals.

    The next larger number with as many decimals follows each, because width * ratio may round to
    less than `units`.
    """
    for decimals in count():
        scale = 10**decimals
        above = -(-units * scale // width)
        yield above / scale
        yield (above + 1) / scale


def files(config: ClipConfig, tensors: "Mapping[str, Tensor]") -> Files:
    """Returns the files of a model in this layout."""
    texts = {OPEN_CLIP_CONFIG_FILE: json_text(config_to_open_clip(config))}
    return Files(OPEN_CLIP_WEIGHTS_FILE, tensors, texts)
