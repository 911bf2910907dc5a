"""Reads and writes configurations of open_clip and transformers.

Their formats describe many more architectures than OpenAI's. Each table lists the values that are
read and the settings that must have the value of OpenAI's models. A setting of another
architecture, tokenizer or preprocess raises an error with its name.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any

from hfclip.config import OPENAI_MEAN, OPENAI_STD, ClipConfig
from hfclip.errors import ConfigError

# The accepted values of a setting, and the rule of hfclip for the error message.
Fixed = tuple[tuple[object, ...], str]


@dataclass(frozen=True)
class _Section:
    """One JSON object of a foreign configuration.

    Attributes:
        owner: The package of the format, for error messages.
        name: The object's path in the file, with a dot at the end; empty for the whole file.
        numbers: The settings that are read: foreign name -> hfclip's name and the foreign default.
        fixed: The settings with a limited set of accepted values.
        ignored: The settings without an effect on features; None ignores all others.
    """

    owner: str
    name: str
    numbers: Mapping[str, tuple[str, object]]
    fixed: Mapping[str, Fixed]
    ignored: frozenset[str] | None = None

    def read(self, values: object) -> dict[str, Any]:
        """Returns the values of `numbers` by hfclip's names.

        Raises:
            ConfigError: A setting is unknown or has a value that is not accepted.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{self.name.rstrip('.') or 'The configuration'} is {shown(values)}, not a JSON "
                "object. Get the published file again."
            )
        self._check_names(values)
        for key, (accepted, why) in self.fixed.items():
            if key in values and values[key] not in accepted:
                raise self.refusal(key, values[key], why)
        return {
            ours: self._side(key, values.get(key, other))
            for key, (ours, other) in self.numbers.items()
        }

    def _check_names(self, values: Mapping[str, object]) -> None:
        if self.ignored is None:
            return
        unknown = values.keys() - self.numbers.keys() - self.fixed.keys() - self.ignored
        if unknown:
            raise self.refusal(min(unknown), values[min(unknown)], "this setting is unknown")

    def _side(self, key: str, value: object) -> object:
        """Returns one side of a square that is given by two; any other value unchanged."""
        if key not in _SQUARES or not isinstance(value, list | tuple) or len(value) != 2:
            return value
        if value[0] != value[1]:
            raise self.refusal(key, value, "images and patches are square")
        return value[0]

    def refusal(self, key: str, value: object, why: str) -> ConfigError:
        """Returns the error for a value that is not accepted."""
        return ConfigError(
            f"{self.name}{key} is {shown(value)}, but in hfclip {why}. "
            f"Load this model with {self.owner} instead."
        )

    def write(self, config: ClipConfig) -> dict[str, Any]:
        """Returns the values by their foreign names, in JSON types: the inverse of `read`."""
        values = {key: getattr(config, ours) for key, (ours, _) in self.numbers.items()}
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


_OFF = (False, None)
_NOTHING: tuple[object, ...] = (None, {})
_SQUARES = frozenset({"image_size", "patch_size"})
_MLP = "every MLP is four times as wide as its tower"
_ATTENTION = "attention is the same as OpenAI's"
_SCALE = "blocks have no layer scale"
_NORM = "the LayerNorms are the same as OpenAI's"
_ACTIVATION = "the activation is QuickGELU or GELU, without options"
_POOLING = "the output of a tower is that of its class or end token, after the LayerNorm"
_TOKENIZER = "the tokenizer is OpenAI's"
_TEXT = "the text tower is a causal transformer with OpenAI's names"
_IMAGE = "the image tower is a ViT or a ResNet with OpenAI's names"
_CHANNELS = "images are RGB"
_RESIZE = "an image is resized by its shorter side, bicubically, then cropped"
_NO_CODE = "code from a repository is not run"

_IN_EVERY_TOWER: dict[str, Fixed] = {
    "mlp_ratio": ((4.0,), _MLP),
    "ls_init_value": ((None,), _SCALE),
    "final_ln_after_pool": (_OFF, _POOLING),
    "output_tokens": (_OFF, "a tower returns one vector"),
    "act_kwargs": (_NOTHING, _ACTIVATION),
    "norm_kwargs": (_NOTHING, _NORM),
    "block_type": ((None, "default"), "blocks are the same as OpenAI's"),
    "qk_norm": (_OFF, _ATTENTION),
    "scaled_cosine_attn": (_OFF, _ATTENTION),
    "scale_heads": (_OFF, _ATTENTION),
    "scale_attn_inner": (_OFF, _ATTENTION),
    "scale_attn": (_OFF, _ATTENTION),
    "scale_fc": (_OFF, _MLP),
}

_OPEN_CLIP_FILE = _Section(
    "open_clip",
    "",
    {"model_cfg": ("model", None), "preprocess_cfg": ("preprocess", None)},
    {},
    frozenset(),
)
_MODEL_CFG = _Section(
    "open_clip",
    "model_cfg.",
    {
        "embed_dim": ("embed_dim", None),
        "quick_gelu": ("quick_gelu", False),
        "vision_cfg": ("vision", None),
        "text_cfg": ("text", None),
    },
    {
        "quick_gelu": ((True, False), _ACTIVATION),
        "custom_text": (_OFF, _TEXT),
        "multimodal_cfg": ((), "a CLIP has two towers"),
        "init_logit_bias": ((None,), "logits have no bias"),
        # This only selects the scale's shape, () or (1,), which the weights show.
        "nonscalar_logit_scale": ((False, True, None), "the logit scale is one number"),
    },
    # The weights hold the scale. The other only selects the form of open_clip's results.
    frozenset({"init_logit_scale", "output_dict"}),
)
_VISION_CFG = _Section(
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
        "attentional_pool": (_OFF, _POOLING),
        "pool_type": (("tok",), _POOLING),
        "pos_embed_type": (("learnable",), "positions are learned"),
        "no_ln_pre": (_OFF, "the image tower has a LayerNorm before its blocks"),
        "timm_model_name": ((None,), _IMAGE),
    },
    # For training, or for settings that are not accepted above; without them these do nothing.
    frozenset({"patch_dropout", "attn_pooler_queries", "attn_pooler_heads"})
    | {"timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias"}
    | {"timm_drop", "timm_drop_path"},
)
_TEXT_CFG = _Section(
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
        "pool_type": (("argmax",), _POOLING),
        "embed_cls": (_OFF, _POOLING),
        "no_causal_mask": (_OFF, _TEXT),
        "proj_bias": (_OFF, "the text projection has no bias"),
        "proj_type": (("linear",), "the text projection is a matrix"),
        # If this key is present, even as null, open_clip builds another class.
        "hf_model_name": ((), _TEXT),
        "hf_tokenizer_name": ((None, ""), _TOKENIZER),
        "tokenizer_mode": ((None,), _TOKENIZER),
        "tokenizer_kwargs": (_NOTHING, _TOKENIZER),
    },
    frozenset({"pad_id", "eos_id", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"}),
)
_PREPROCESS_CFG = _Section(
    "open_clip",
    "preprocess_cfg.",
    {"mean": ("image_mean", None), "std": ("image_std", None)},
    {
        "mode": (("RGB", None), _CHANNELS),
        # "random" applies only in training; otherwise it means bicubic.
        "interpolation": (("bicubic", "random", None), _RESIZE),
        "resize_mode": (("shortest", None), _RESIZE),
    },
    # open_clip takes the size from the model. The fill color applies only to another resize mode.
    frozenset({"size", "fill_color"}),
)


def config_from_open_clip(values: Mapping[str, Any]) -> ClipConfig:
    """Converts the object of an `open_clip_config.json`.

    Raises:
        ConfigError: A setting is not supported; the message names it.
    """
    file = _OPEN_CLIP_FILE.read(values)
    model = _MODEL_CFG.read(file["model"])
    pixels = _PREPROCESS_CFG.read({} if file["preprocess"] is None else file["preprocess"])
    return ClipConfig(
        embed_dim=model["embed_dim"],
        **_VISION_CFG.read(model["vision"]),
        **_TEXT_CFG.read(model["text"]),
        activation="quick_gelu" if model["quick_gelu"] else "gelu",
        image_mean=pixels["image_mean"] or OPENAI_MEAN,
        image_std=pixels["image_std"] or OPENAI_STD,
    )


def config_to_open_clip(config: ClipConfig) -> dict[str, Any]:
    """Returns the object of an `open_clip_config.json`: the inverse of `config_from_open_clip`."""
    settled = {"interpolation": "bicubic", "resize_mode": "shortest"}
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "quick_gelu": config.activation == "quick_gelu",
            "vision_cfg": _VISION_CFG.write(config),
            "text_cfg": _TEXT_CFG.write(config),
        },
        "preprocess_cfg": _PREPROCESS_CFG.write(config) | settled,
    }


_END_TOKEN = 49_407
# A special value, not the end token: transformers then pools at the highest id, as OpenAI does.
_HIGHEST_ID = 2

# transformers ignores unknown settings, and writes dozens of settings that a CLIP does not read.
# So only settings that could change the model are checked.
_IN_BOTH_STACKS: dict[str, Fixed] = {
    "hidden_act": (("quick_gelu", "gelu"), _ACTIVATION),
    "layer_norm_eps": ((1e-5,), _NORM),
    "pruned_heads": (_NOTHING, "attention heads are not pruned"),
    "quantization_config": (_NOTHING, "weights are not quantized"),
}
_CLIP_CONFIG = _Section(
    "transformers",
    "",
    {
        "projection_dim": ("embed_dim", 512),
        "text_config": ("text", None),
        "vision_config": ("vision", None),
        "text_config_dict": ("text_override", None),
        "vision_config_dict": ("vision_override", None),
    },
    {
        "model_type": (("clip",), "only the model type 'clip' is supported"),
        "architectures": ((None, ["CLIPModel"]), "a CLIP has two towers, each with a projection"),
        "auto_map": (_NOTHING, _NO_CODE),
        "quantization_config": (_NOTHING, "weights are not quantized"),
    },
)
_TEXT_CONFIG = _Section(
    "transformers",
    "text_config.",
    {
        "hidden_size": ("transformer_width", 512),
        "num_hidden_layers": ("transformer_layers", 12),
        "num_attention_heads": ("transformer_heads", 8),
        "max_position_embeddings": ("context_length", 77),
        "vocab_size": ("vocab_size", 49_408),
        "hidden_act": ("activation", "quick_gelu"),
    },
    {
        **_IN_BOTH_STACKS,
        "model_type": (("clip_text_model",), _TEXT),
        "eos_token_id": ((_HIGHEST_ID, _END_TOKEN), "a text ends with OpenAI's end token, 49407"),
    },
)
_VISION_CONFIG = _Section(
    "transformers",
    "vision_config.",
    {
        "hidden_size": ("vision_width", 768),
        "num_hidden_layers": ("vision_layers", 12),
        "num_attention_heads": ("vision_heads", 12),
        "image_size": ("image_resolution", 224),
        "patch_size": ("vision_patch_size", 32),
        "hidden_act": ("activation", "quick_gelu"),
    },
    {
        **_IN_BOTH_STACKS,
        "model_type": (("clip_vision_model",), _IMAGE),
        "num_channels": ((3,), _CHANNELS),
    },
)
# The default width of each stack's MLP.
_MLP_WIDTHS = {"text_config.": 2048, "vision_config.": 3072}

_PROCESSORS = (
    None,
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPImageProcessorPil",
    "CLIPFeatureExtractor",
)
_PREPROCESSOR = _Section(
    "transformers",
    "preprocessor.",
    {"image_mean": ("image_mean", OPENAI_MEAN), "image_std": ("image_std", OPENAI_STD)},
    {
        "image_processor_type": (_PROCESSORS, _RESIZE),
        "feature_extractor_type": (_PROCESSORS, _RESIZE),
        "auto_map": (_NOTHING, _NO_CODE),
        "do_resize": ((True,), _RESIZE),
        "do_center_crop": ((True,), _RESIZE),
        "do_pad": (_OFF, _RESIZE),
        "use_square_size": (_OFF, _RESIZE),
        "resample": ((3,), _RESIZE),  # Pillow's number for bicubic
        "do_convert_rgb": ((True,), "every image is converted to RGB"),
        "do_rescale": ((True,), "pixels are rescaled to [0, 1]"),
        "rescale_factor": ((1 / 255,), "pixels are rescaled to [0, 1]"),
        "do_normalize": ((True,), "pixels are normalized"),
    },
)
_SIZES = {"size": ("shortest_edge",), "crop_size": ("height", "width")}


def config_from_transformers(
    values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> ClipConfig:
    """Converts the config.json of a transformers CLIP.

    Settings that CLIPModel does not read are ignored, such as projection_dim of a tower.

    Args:
        values: The object of config.json.
        preprocessor: The object of preprocessor_config.json, or of the newer
            processor_config.json; by default OpenAI's mean and standard deviation.

    Raises:
        ConfigError: A setting is not supported; the message names it.
    """
    file = _CLIP_CONFIG.read(values)
    text_section = _overridden(file["text"], file["text_override"])
    vision_section = _overridden(file["vision"], file["vision_override"])
    text, vision = _TEXT_CONFIG.read(text_section), _VISION_CONFIG.read(vision_section)
    if text["activation"] != vision["activation"]:
        why = f"both towers have the same activation, and the text tower's is {text['activation']}"
        raise _VISION_CONFIG.refusal("hidden_act", vision["activation"], why)
    vision["vision_head_width"] = _head_width(vision["vision_width"], vision.pop("vision_heads"))
    config = ClipConfig(embed_dim=file["embed_dim"], **(text | vision))
    _check_mlp(_TEXT_CONFIG, text_section, config.transformer_width)
    _check_mlp(_VISION_CONFIG, vision_section, config.vision_width)
    return config if preprocessor is None else _with_pixels(config, preprocessor)


def config_to_transformers(config: ClipConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the objects of transformers' config.json and preprocessor_config.json.

    Raises:
        ConfigError: The image tower is a ResNet, which transformers' CLIP does not support.
    """
    if config.is_resnet:
        raise ConfigError(
            "The image tower is a ResNet, but transformers' CLIP supports only a ViT. "
            "Write the layout of hfclip or of open_clip instead."
        )
    text, vision = _TEXT_CONFIG.write(config), _VISION_CONFIG.write(config)
    for section, stack in ((_TEXT_CONFIG, text), (_VISION_CONFIG, vision)):
        stack["intermediate_size"] = 4 * stack["hidden_size"]
        stack["projection_dim"] = config.embed_dim
        stack["layer_norm_eps"] = 1e-5
        stack["model_type"] = section.fixed["model_type"][0][0]
    text["eos_token_id"] = _END_TOKEN if config.vocab_size > _END_TOKEN else _HIGHEST_ID
    values = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",  # the dtype to compute in, not that of the stored weights
        "projection_dim": config.embed_dim,
        "text_config": text,
        "vision_config": vision,
    }
    return values, preprocessor_to_transformers(config)


def _overridden(section: object, override: object) -> Any:
    """Returns the section of a tower that transformers uses: the older one if it is present.

    Missing settings of the older section have its defaults, not the values of the newer section.
    """
    chosen = section if override is None else override
    return {} if chosen is None else chosen


def _head_width(width: Any, heads: Any) -> int:
    numbers = isinstance(width, int) and isinstance(heads, int) and heads > 0
    if not numbers or width % heads:
        raise ConfigError(
            f"vision_config.num_attention_heads is {shown(heads)}, which does not divide the "
            f"hidden_size {shown(width)}. Get the published file again."
        )
    return int(width // heads)


def _check_mlp(section: _Section, values: Mapping[str, Any], width: int) -> None:
    found = values.get("intermediate_size", _MLP_WIDTHS[section.name])
    if found != 4 * width:
        raise section.refusal("intermediate_size", found, f"{_MLP}, which is {width}")


def _with_pixels(config: ClipConfig, preprocessor: Mapping[str, Any]) -> ClipConfig:
    values = preprocessor.get("image_processor", preprocessor)
    pixels = _PREPROCESSOR.read(values)
    for key, sides in _SIZES.items():
        found = values.get(key, 224)
        if not _agrees(found, sides, config.image_resolution):
            why = f"it must be {' and '.join(sides)} {config.image_resolution}, the model's size"
            raise _PREPROCESSOR.refusal(key, found, why)
    return dataclasses.replace(config, **pixels)


def _agrees(size: object, sides: tuple[str, ...], expected: int) -> bool:
    """Returns whether a size, a number in older files, has the expected length on these sides."""
    if isinstance(size, Mapping):
        given = {side: length for side, length in size.items() if length is not None}
        return given == dict.fromkeys(sides, expected)
    return size == expected


def preprocessor_to_transformers(config: ClipConfig) -> dict[str, Any]:
    """Returns the object of a preprocessor_config.json, for a ViT or a ResNet."""
    side = config.image_resolution
    steps = ("resize", "center_crop", "convert_rgb", "rescale", "normalize")
    return {
        "image_processor_type": "CLIPImageProcessor",
        **{f"do_{step}": True for step in steps},
        **{key: dict.fromkeys(sides, side) for key, sides in _SIZES.items()},
        "resample": 3,
        "rescale_factor": 1 / 255,
        **_PREPROCESSOR.write(config),
    }


def is_hfclip(values: Mapping[str, Any]) -> bool:
    """Returns whether a config.json is in hfclip's layout: no other layout has these names."""
    return "embed_dim" in values and "transformer_width" in values


def is_transformers_clip(values: Mapping[str, Any]) -> bool:
    """Returns whether a config.json is that of a transformers CLIP with both towers."""
    return values.get("model_type") == "clip" and not is_hfclip(values)


# A setting of another package's config.json -> the package and the remedy.
_OTHER_PACKAGES = {
    "pretrained_cfg": (
        "timm's, for an image tower only. Load it with timm; or, if the repository also holds "
        "open_clip_config.json, get that file and open_clip_model.safetensors."
    ),
    "model_cfg": "open_clip's. Name it open_clip_config.json, beside open_clip_model.safetensors.",
}


def config_from_json(
    values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> ClipConfig:
    """Converts a config.json in hfclip's or transformers' layout.

    Raises:
        ConfigError: It belongs to another package or model, or a setting is not supported.
    """
    if is_transformers_clip(values):
        return config_from_transformers(values, preprocessor)
    if is_hfclip(values):
        return ClipConfig.from_dict(values)
    for key, whose in _OTHER_PACKAGES.items():
        if key in values:
            raise ConfigError(f"The configuration holds {key}, so it is {whose}")
    if "model_type" in values:
        _CLIP_CONFIG.read(values)  # raises the error for the model type
    return ClipConfig.from_dict(values)  # raises the error for missing settings
