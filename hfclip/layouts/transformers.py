"""transformers' layout: configuration and names of weights, read and written.

hfclip and open_clip use OpenAI's names of weights. transformers has other names, keeps the three
attention projections apart, and stores its two output projections transposed.
"""

from collections.abc import Iterable, Mapping
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any, TypeVar

from hfclip.config import ClipConfig
from hfclip.errors import ConfigError, WeightsMismatchError
from hfclip.layouts import kinds
from hfclip.layouts.files import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE, Files, json_text
from hfclip.layouts.preprocessor import preprocessor_to_transformers, with_preprocessor
from hfclip.layouts.section import (
    ACTIVATION,
    CHANNELS,
    IMAGE,
    NO_CODE,
    NORM,
    NOTHING,
    TEXT,
    Fixed,
    Section,
)
from hfclip.text.bpe import VOCAB_SIZE
from hfclip.text.vocabulary import tokenizer_files

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")  # a tensor of torch or an array of NumPy

# transformers' name -> OpenAI's name.
_SINGLE = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
_TRANSPOSED = {
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
_STACKS = {
    "text_model.encoder.layers.": "transformer.resblocks.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
}
_IN_BLOCK = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
}
_QUERY_KEY_VALUE = tuple(f"self_attn.{letter}_proj." for letter in "qkv")
# Older files hold these position indices beside the weights.
_NOT_WEIGHTS = frozenset(
    {"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"}
)


def from_transformers(tensors: Mapping[str, _T]) -> dict[str, _T]:
    """Converts weights from transformers' layout to OpenAI's. Unknown names are kept.

    The attention projections are joined in new memory. So are the output projections of torch
    transposed; those of NumPy are transposed views. The other tensors are not copied.

    Args:
        tensors: Tensors of torch or arrays of NumPy by their names.

    Raises:
        WeightsMismatchError: One of the three attention projections is missing.
    """
    renamed: dict[str, _T] = {}
    for name, tensor in tensors.items():
        if name in _TRANSPOSED:
            renamed[_TRANSPOSED[name]] = _transposed(tensor)
        elif _QUERY_KEY_VALUE[0] in name:
            renamed[_openai_block_name(name)] = _joined(name, tensors)
        elif name not in _NOT_WEIGHTS and not any(part in name for part in _QUERY_KEY_VALUE):
            renamed[_SINGLE.get(name) or _openai_block_name(name)] = tensor
    return renamed


def to_transformers(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Converts the weights of a ViT from OpenAI's layout to transformers'."""
    single = {ours: theirs for theirs, ours in _SINGLE.items()}
    transposed = {ours: theirs for theirs, ours in _TRANSPOSED.items()}
    renamed = {}
    for name, tensor in tensors.items():
        if name in transposed:
            renamed[transposed[name]] = tensor.t().contiguous()
        elif ".attn.in_proj_" in name:
            for part, piece in zip(_QUERY_KEY_VALUE, tensor.chunk(3), strict=True):
                theirs = _transformers_block_name(name).replace("attn.in_proj_", part)
                renamed[theirs] = piece.contiguous()
        else:
            renamed[single.get(name) or _transformers_block_name(name)] = tensor
    return renamed


def _joined(query: str, tensors: Mapping[str, Any]) -> Any:
    """Returns the query, key and value projections as one tensor, (3 W, W) or (3 W,)."""
    names = [query.replace(_QUERY_KEY_VALUE[0], part) for part in _QUERY_KEY_VALUE]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise WeightsMismatchError(
            f"The weights hold {query} but lack {' and '.join(missing)}. Get the file again."
        )
    parts = [tensors[name] for name in names]
    if _is_array(parts[0]):
        import numpy as np  # noqa: PLC0415  # reading a configuration needs neither NumPy nor torch

        return np.concatenate(parts)
    import torch  # noqa: PLC0415

    return torch.cat(parts)


def _transposed(tensor: Any) -> Any:
    return tensor.T if _is_array(tensor) else tensor.t().contiguous()


def _is_array(tensor: object) -> bool:
    return type(tensor).__module__ == "numpy"


def _openai_block_name(name: str) -> str:
    name = _replace(name, _STACKS.items())
    name = name.replace(_QUERY_KEY_VALUE[0], "attn.in_proj_")
    return _replace(name, _IN_BLOCK.items())


def _transformers_block_name(name: str) -> str:
    # The longer prefix first: it ends with the shorter one.
    name = _replace(name, [(ours, theirs) for theirs, ours in reversed(_STACKS.items())])
    return _replace(name, [(ours, theirs) for theirs, ours in _IN_BLOCK.items()])


def _replace(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Replaces the old text of the first pair that occurs in a name."""
    for old, new in pairs:
        if old in name:
            return name.replace(old, new)
    return name


_END_TOKEN = 49_407
# A special value, not the end token: transformers then pools at the highest id, as OpenAI does.
_HIGHEST_ID = 2

# transformers ignores unknown settings, and writes dozens of settings that a CLIP does not read.
# So only settings that could change the model are checked.
_IN_BOTH_STACKS: dict[str, Fixed] = {
    "hidden_act": (("quick_gelu", "gelu"), ACTIVATION),
    "layer_norm_eps": ((1e-5,), NORM),
    "pruned_heads": (NOTHING, "attention heads are not pruned"),
    "quantization_config": (NOTHING, "weights are not quantized"),
}
CLIP_CONFIG = Section(
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
        "auto_map": (NOTHING, NO_CODE),
        "architectures": ((None, ["CLIPModel"]), kinds.BOTH_TOWERS),
        "quantization_config": (NOTHING, "weights are not quantized"),
    },
)
_TEXT_CONFIG = Section(
    "transformers",
    "text_config.",
    {
        "hidden_size": ("transformer_width", 512),
        "num_hidden_layers": ("transformer_layers", 12),
        "num_attention_heads": ("transformer_heads", 8),
        "intermediate_size": ("transformer_mlp_units", 2048),
        "max_position_embeddings": ("context_length", 77),
        "vocab_size": ("vocab_size", 49_408),
        "hidden_act": ("activation", "quick_gelu"),
    },
    {
        **_IN_BOTH_STACKS,
        "model_type": (("clip_text_model",), TEXT),
        "eos_token_id": ((_HIGHEST_ID, _END_TOKEN), "a text ends with OpenAI's end token, 49407"),
    },
)
_VISION_CONFIG = Section(
    "transformers",
    "vision_config.",
    {
        "hidden_size": ("vision_width", 768),
        "num_hidden_layers": ("vision_layers", 12),
        "num_attention_heads": ("vision_heads", 12),
        "intermediate_size": ("vision_mlp_units", 3072),
        "image_size": ("image_resolution", 224),
        "patch_size": ("vision_patch_size", 32),
        "hidden_act": ("activation", "quick_gelu"),
    },
    {
        **_IN_BOTH_STACKS,
        "model_type": (("clip_vision_model",), IMAGE),
        "num_channels": ((3,), CHANNELS),
    },
)


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
    kinds.check_kind(values)
    file = CLIP_CONFIG.read(values)
    text_section = _overridden(file["text"], file["text_override"])
    vision_section = _overridden(file["vision"], file["vision_override"])
    text, vision = _TEXT_CONFIG.read(text_section), _VISION_CONFIG.read(vision_section)
    if text["activation"] != vision["activation"]:
        why = f"both towers have the same activation, and the text tower's is {text['activation']}"
        raise _VISION_CONFIG.refusal("hidden_act", vision["activation"], why)
    vision["vision_head_width"] = _head_width(vision["vision_width"], vision.pop("vision_heads"))
    text["transformer_mlp_width"] = _units(_TEXT_CONFIG, text.pop("transformer_mlp_units"))
    vision["vision_mlp_width"] = _units(_VISION_CONFIG, vision.pop("vision_mlp_units"))
    config = ClipConfig(embed_dim=file["embed_dim"], **(text | vision))
    return config if preprocessor is None else with_preprocessor(config, preprocessor)


def config_to_transformers(config: ClipConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the objects of transformers' config.json and preprocessor_config.json.

    Raises:
        ConfigError: The image tower is a ResNet, which transformers' CLIP does not support, or
            images are padded.
    """
    if config.is_resnet:
        raise ConfigError(
            "The image tower is a ResNet, but transformers' CLIP supports only a ViT. "
            "Write the layout of hfclip or of open_clip instead."
        )
    text, vision = _TEXT_CONFIG.write(config), _VISION_CONFIG.write(config)
    for section, stack in ((_TEXT_CONFIG, text), (_VISION_CONFIG, vision)):
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


def _units(section: Section, units: Any) -> Any:
    """Returns the number of hidden units. None would be hfclip's default, not the file's."""
    if units is None:
        raise ConfigError(
            f"{section.name}intermediate_size is None; it must be an integer. Get the published "
            "file again."
        )
    return units


def files(config: ClipConfig, tensors: "Mapping[str, Tensor]") -> Files:
    """Returns the files of a model in this layout."""
    values, preprocessor = config_to_transformers(config)
    texts = {CONFIG_FILE: json_text(values), PREPROCESSOR_FILE: json_text(preprocessor)}
    return Files(WEIGHTS_FILE, to_transformers(tensors), texts | tokenizer_of(config))


def tokenizer_of(config: ClipConfig) -> dict[str, str]:
    """Returns the tokenizer's files if the model has an embedding for each token, else none."""
    return tokenizer_files(config.context_length) if config.vocab_size >= VOCAB_SIZE else {}
