"""Detects the layout of a config.json and reads it."""

from collections.abc import Mapping
from typing import Any

from hfclip.config import ClipConfig
from hfclip.errors import ConfigError
from hfclip.layouts.kinds import check_kind
from hfclip.layouts.native import is_hfclip
from hfclip.layouts.transformers import CLIP_CONFIG, config_from_transformers


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
        check_kind(values)
        CLIP_CONFIG.read(values)  # raises the error for the model type
    return ClipConfig.from_dict(values)  # raises the error for missing settings
