"""hfclip's own layout: the flat config.json with OpenAI's names of weights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hfclip.config import ClipConfig
from hfclip.layouts.files import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE, Files, json_text
from hfclip.layouts.preprocessor import preprocessor_to_transformers
from hfclip.layouts.transformers import tokenizer_of

if TYPE_CHECKING:
    from torch import Tensor


def is_hfclip(values: Mapping[str, Any]) -> bool:
    """Returns whether a config.json is in hfclip's layout: no other layout has these names."""
    return "embed_dim" in values and "transformer_width" in values


def files(config: ClipConfig, tensors: "Mapping[str, Tensor]") -> Files:
    """Returns the files of a model in this layout."""
    texts = {CONFIG_FILE: json_text(config.to_dict())}
    # For transformers' processor, which cannot pad. hfclip reads the preprocess from config.json.
    if config.resize_mode != "longest":
        texts[PREPROCESSOR_FILE] = json_text(preprocessor_to_transformers(config))
    return Files(WEIGHTS_FILE, tensors, texts | tokenizer_of(config))
