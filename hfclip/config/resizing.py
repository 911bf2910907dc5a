"""The settings that bring an image to the side of the model's input, checked and described."""

from typing import Literal, get_args

from hfclip.config.values import choice, integer
from hfclip.errors import ConfigError

ResizeMode = Literal["shortest", "longest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]

# Sides in pixels, both ends included.
SIDE_RANGE = (1, 16_384)
_LEVELS = (0, 255)
_WORDS = {
    "shortest": "shorter side resized to {side}",
    "longest": "longer side resized to {side}",
    "squash": "resized to {side} x {side} without keeping the aspect ratio",
}


def settled_resizing(
    resolution: int,
    resize_mode: object,
    interpolation: object,
    resize_resolution: object,
    fill_color: object,
) -> tuple[int | None, int]:
    """Checks the settings, which `hfclip.ClipConfig` describes.

    Returns:
        `resize_resolution`, None if it equals `resolution`, and `fill_color`, 0 if no image is
        padded. So two configurations with the same effect are equal.

    Raises:
        ConfigError: A value has the wrong type or is out of range, `resize_resolution` is less than
            `resolution`, or an image would be padded and cropped.
    """
    choice("resize_mode", resize_mode, get_args(ResizeMode))
    choice("interpolation", interpolation, get_args(Interpolation))
    fill = integer("fill_color", fill_color, _LEVELS)
    pads = resize_mode == "longest"
    side = resolution
    if resize_resolution is not None:
        side = integer("resize_resolution", resize_resolution, SIDE_RANGE)
    if side < resolution:
        raise ConfigError(
            f"resize_resolution is {side}; it must be at least the image resolution, {resolution}, "
            "because the center is cropped after resizing."
        )
    if pads and side != resolution:
        raise ConfigError(
            f"resize_resolution is {side}, but with resize_mode 'longest' an image is padded and "
            f"not cropped. Leave it out, or give the image resolution, {resolution}."
        )
    return side if side != resolution else None, fill if pads else 0


def describe_resizing(
    resolution: int,
    resize_mode: ResizeMode,
    interpolation: Interpolation,
    resize_resolution: int | None,
    fill_color: int,
) -> str:
    """Describes how an image gets its size, such as "shorter side resized to 224 (bilinear)"."""
    resized = _WORDS[resize_mode].format(side=resize_resolution or resolution)
    if resize_mode == "longest":
        end = f", padded with level {fill_color}"
    else:
        end = ", center cropped" if resize_mode == "shortest" or resize_resolution else ""
    return f"{resized} ({interpolation}){end}"
