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
    differing = {name: getattr(config, name) for name in sorted(_ASSUMED)}
    differing = {n: value for n, value in differing.items() if value != getattr(assumed, n)}
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


# The settings that readers of OpenAI's layout assume, as shapes do not determine them.
_ASSUMED = frozenset(
    {
        "activation",
        "vision_head_width",
        "image_mean",
        "image_std",
        "resize_mode",
        "interpolation",
        "resize_resolution",
        "fill_color",
    }
)
