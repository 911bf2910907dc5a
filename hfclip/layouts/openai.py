"""OpenAI's layout: a state dict without a configuration."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hfclip.config import ClipConfig
from hfclip.errors import ConfigError
from hfclip.layouts.files import OPENAI_WEIGHTS_FILE, Files

if TYPE_CHECKING:
    from torch import Tensor


def files(config: ClipConfig, tensors: "Mapping[str, Tensor]") -> Files:
    """Returns the files of a model in this layout, if shapes determine its configuration."""
    # This layout has no configuration, so readers assume OpenAI's settings.
    assumed = ClipConfig(
        **{name: value for name, value in config.to_dict().items() if name not in _ASSUMED},
    )
    heads = config.transformer_heads * 64
    if config != assumed or heads != config.transformer_width:
        raise ConfigError(
            "The model's activation, head width or preprocess differs from OpenAI's, and OpenAI's "
            "layout has no configuration to describe it. Write the layout of hfclip or open_clip "
            "instead."
        )
    return Files(OPENAI_WEIGHTS_FILE, tensors, {})


# The settings that readers of OpenAI's layout assume, as shapes do not determine them.
_ASSUMED = {"activation", "vision_head_width", "image_mean", "image_std"}
