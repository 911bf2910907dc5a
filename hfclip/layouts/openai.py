"""OpenAI's layout: a state dict without a configuration."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hfclip.config import ClipConfig
from hfclip.errors import ConfigError
from hfclip.layouts.files import OPENAI_WEIGHTS_FILE, Files

if TYPE_CHECKING:
    from torch import Tensor


def files(config: ClipConfig, tensors: "Mapping[str, Tensor]") -> Files:
    """Returns the files of a model in this layout, if OpenAI's package reads them correctly.

    Raises:
        ConfigError: A setting differs from those that readers of this layout assume. hfclip reads
            the width of the MLPs from the shapes, but OpenAI's package does not.
    """
    # Readers take the sizes from the shapes and assume OpenAI's values of everything else.
    fields = dataclasses.fields(config)
    sizes = [field.name for field in fields if field.default is dataclasses.MISSING]
    assumed = ClipConfig(*(getattr(config, name) for name in sizes))
    heads = config.transformer_heads * 64
    if config != assumed or heads != config.transformer_width:
        raise ConfigError(
            "The model's activation, head width, MLP width or preprocess differs from OpenAI's, "
            "and OpenAI's layout has no configuration to describe it. Write the layout of hfclip "
            "or open_clip instead."
        )
    return Files(OPENAI_WEIGHTS_FILE, tensors, {})
