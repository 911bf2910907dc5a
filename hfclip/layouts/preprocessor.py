"""transformers' preprocessor_config.json, read and written."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hfclip.config import OPENAI_MEAN, OPENAI_STD, ClipConfig
from hfclip.config.resizing import Interpolation, ResizeMode
from hfclip.errors import ConfigError
from hfclip.layouts.section import FILTER, NO_CODE, NOTHING, OFF, RESIZE, Section

_PROCESSORS = (
    None,
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPImageProcessorPil",
    "CLIPFeatureExtractor",
)
_PREPROCESSOR = Section(
    "transformers",
    "preprocessor.",
    {"image_mean": ("image_mean", OPENAI_MEAN), "image_std": ("image_std", OPENAI_STD)},
    {
        "image_processor_type": (_PROCESSORS, "the processor is CLIP's"),
        "feature_extractor_type": (_PROCESSORS, "the processor is CLIP's"),
        "auto_map": (NOTHING, NO_CODE),
        "do_resize": ((True,), RESIZE),
        "do_center_crop": ((True, False), RESIZE),
        "do_pad": (OFF, RESIZE),
        "use_square_size": (OFF, RESIZE),
        "resample": ((3, 2), FILTER),
        "do_convert_rgb": ((True,), "every image is converted to RGB"),
        "do_rescale": ((True,), "pixels are rescaled to [0, 1]"),
        "rescale_factor": ((1 / 255,), "pixels are rescaled to [0, 1]"),
        "do_normalize": ((True, False), "pixels are normalized or not"),
    },
)
# The numbers of Pillow's filters.
_RESAMPLE: dict[Interpolation, int] = {"bicubic": 3, "bilinear": 2}
_SHORTEST, _SQUARE = ("shortest_edge",), ("height", "width")
_SIDES: dict[ResizeMode, tuple[str, ...]] = {"shortest": _SHORTEST, "squash": _SQUARE}
_DEFAULT_SIZE = 224


def with_preprocessor(config: ClipConfig, preprocessor: Mapping[str, Any]) -> ClipConfig:
    """Returns the configuration with the preprocess of a preprocessor's file.

    Args:
        config: The configuration of the model.
        preprocessor: The object of preprocessor_config.json, or of the newer
            processor_config.json.

    Raises:
        ConfigError: A setting is not supported; the message names it.
    """
    values = preprocessor.get("image_processor", preprocessor)
    pixels = _PREPROCESSOR.read(values)
    if values.get("do_normalize") is False:
        pixels |= {"image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)}
    filters: dict[int, Interpolation] = {number: name for name, number in _RESAMPLE.items()}
    mode, side = _resizing(values, config.image_resolution)
    return dataclasses.replace(
        config,
        **pixels,
        resize_mode=mode,
        interpolation=filters[values.get("resample", _RESAMPLE["bicubic"])],
        resize_resolution=side,
    )


def _resizing(values: Mapping[str, Any], resolution: int) -> tuple[ResizeMode, int]:
    """Returns the resize mode, and the side to which an image is resized before the crop.

    Raises:
        ConfigError: An image would not get the model's size, or the crop would pad it.
    """
    size = values.get("size", _DEFAULT_SIZE)
    sides, side = _sides_of(size, _SHORTEST)
    modes = {sides: mode for mode, sides in _SIDES.items()}
    if sides not in modes or side is None or side < resolution:
        why = "it must be shortest_edge, or the same height and width, of at least"
        raise _PREPROCESSOR.refusal("size", size, f"{why} {resolution}, the model's size")
    if values.get("do_center_crop", True):
        crop = values.get("crop_size", _DEFAULT_SIZE)
        if _sides_of(crop, _SQUARE) != (_SQUARE, resolution):
            why = f"it must be height and width {resolution}, the model's size"
            raise _PREPROCESSOR.refusal("crop_size", crop, why)
    elif (sides, side) != (_SQUARE, resolution):
        why = f"it must be true unless size is height and width {resolution}, the model's size"
        raise _PREPROCESSOR.refusal("do_center_crop", False, why)
    return modes[sides], side


def _sides_of(size: object, default: tuple[str, ...]) -> tuple[tuple[str, ...], int | None]:
    """Returns the names of the given sides in order, and their length, or None if it differs.

    Args:
        size: Lengths by name; the height and the width; or, in older files, one number.
        default: The sides that one number stands for.
    """
    if isinstance(size, list | tuple) and len(size) == len(_SQUARE):
        size = dict(zip(_SQUARE, size, strict=True))
    elif not isinstance(size, Mapping):
        size = dict.fromkeys(default, size)
    given = {name: length for name, length in sorted(size.items()) if length is not None}
    length = next(iter(given.values()), None)
    is_one = isinstance(length, int) and all(other == length for other in given.values())
    return tuple(given), length if is_one else None


def preprocessor_to_transformers(config: ClipConfig) -> dict[str, Any]:
    """Returns the object of a preprocessor_config.json, for a ViT or a ResNet.

    Raises:
        ConfigError: Images are padded, which transformers' processor of a CLIP does not do.
    """
    if config.resize_mode not in _SIDES:
        raise ConfigError(
            f"resize_mode is {config.resize_mode!r}, but transformers' CLIPImageProcessor does not "
            "pad an image to a square. Write the layout of hfclip or of open_clip instead."
        )
    side = config.image_resolution
    resized = config.resize_resolution or side
    steps = ("resize", "center_crop", "convert_rgb", "rescale", "normalize")
    return {
        "image_processor_type": "CLIPImageProcessor",
        **{f"do_{step}": True for step in steps},
        "size": dict.fromkeys(_SIDES[config.resize_mode], resized),
        "crop_size": dict.fromkeys(_SQUARE, side),
        "resample": _RESAMPLE[config.interpolation],
        "rescale_factor": 1 / 255,
        **_PREPROCESSOR.write(config),
    }
