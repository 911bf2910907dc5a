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
    differing = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.default is not dataclasses.MISSING and getattr(config, field.name) != field.default
    }
    if config.transformer_heads * 64 != config.transformer_width:
        differing["transformer_heads"] = config.transformer_heads
    if differing:
        found = " and ".join(f"{name} is {value!r}" for name, value in differing.items())
        raise ConfigError(
            f"The model's {found}. This differs from OpenAI's models, and OpenAI's layout has no "
            "configuration to describe it. Write hfclip's layout instead; those of open_clip and "
            "transformers have a configuration too."
        )
    return Files(OPENAI_WEIGHTS_FILE, tensors, {})
