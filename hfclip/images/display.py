"""Converts an opened picture to what an image viewer shows: upright, 8 bits per channel."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image

from hfclip.errors import ImageError

_Values: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

# Undoes each value of the EXIF tag Orientation (Exif 2.32, section 4.6.4). 1 is upright.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Entries of `Image.info` in which Pillow looks for an orientation.
_ORIENTATION_ENTRIES = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
# Formats whose decoder can scale (`Image.draft`), so they stay undecoded.
_SCALED_BY_DECODER = ("JPEG", "MPO")
# Formats whose decoder applies the orientation; older versions of Pillow keep the tag.
_TURNED_BY_DECODER = ("TIFF",)
# Formats that Pillow opens in mode "I" if they have 16 bits per pixel.
_16_BITS_IN_MODE_I = ("PNG", "PPM")
# TIFF 6.0, sections 3 and 8.
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_COMPRESSION = 259
_TIFF_UNCOMPRESSED = 1
_TIFF_PHOTOMETRIC = 262
_TIFF_WHITE_IS_ZERO = 0
_TIFF_PLANAR_CONFIGURATION = 284
_TIFF_SEPARATE_PLANES = 2


def as_displayed(
    image: Image.Image, *, auto_orient: bool = True, least_side: int | None = None
) -> Image.Image:
    """Returns the picture upright and with 8 bits per channel.

    Returns the image itself if no change is needed. Does not decode a JPEG without an orientation.

    Args:
        image: A picture of any mode, as `Image.open` returned it.
        auto_orient: Whether to apply the EXIF orientation.
        least_side: A JPEG that needs a rotation may be decoded at 1/2, 1/4 or 1/8 of its size if
            its shorter side keeps this many pixels. This changes `image` itself.

    Raises:
        ImageError: The mode has more than 8 bits and the value of white is unknown, or Pillow
            misreads the file.
    """
    _check_planes(image)
    if image.format not in _SCALED_BY_DECODER:
        image.load()  # Older versions of Pillow know the size of a rotated TIFF only after this.
    transposition = _TRANSPOSITIONS.get(_orientation(image)) if auto_orient else None
    if transposition is not None and least_side is not None:
        _scale_while_decoding(image, least_side)
    to_8_bits = _TO_8_BITS.get(image.mode)
    shown = to_8_bits(image) if to_8_bits else image
    return shown if transposition is None else _transposed(shown, transposition)


def blended(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Returns the picture over a colour, in RGB. Returns a picture without alpha as it is."""
    if not {"A", "a"} & set(image.getbands()) and "transparency" not in image.info:
        return image
    foreground = image.convert("RGBA")
    below = Image.new("RGBA", foreground.size, (*background, 255))
    return Image.alpha_composite(below, foreground).convert("RGB")


def _check_planes(image: Image.Image) -> None:
    """Rejects uncompressed TIFF planes over 8 bits, because Pillow reads each byte as a pixel."""
    bits = max(_tiff_tag(image, _TIFF_BITS_PER_SAMPLE) or (1,))
    separate = _tiff_tag(image, _TIFF_PLANAR_CONFIGURATION) == _TIFF_SEPARATE_PLANES
    plain = _tiff_tag(image, _TIFF_COMPRESSION) == _TIFF_UNCOMPRESSED
    if separate and plain and bits > 8 and len(image.getbands()) > 1:
        raise ImageError(
            f"is a TIFF of separate planes with {bits} bits, which Pillow misreads. Save it with "
            "interleaved channels or 8 bits per channel"
        )


def _orientation(image: Image.Image) -> Any:
    """Returns the value of the EXIF tag, or 1 if there is none or the EXIF data is damaged."""
    if image.format in _TURNED_BY_DECODER:
        return 1
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  # Pillow raises many; viewers ignore damaged EXIF
        return 1


def _scale_while_decoding(image: Image.Image, least_side: int) -> None:
    """Sets the decoder of a large RGB JPEG to scale it down.

    Skips images with a side that is no multiple of 8, because the last block would not fit.
    """
    shorter = min(image.size)
    fits = image.mode == "RGB" and not any(side % 8 for side in image.size)
    if image.format == "JPEG" and fits and shorter >= 2 * least_side:
        width, height = (least_side * side // shorter for side in image.size)
        image.draft("RGB", (width, height))


def _transposed(image: Image.Image, transposition: Image.Transpose) -> Image.Image:
    """Returns a transposed copy without the orientation, so that it is not applied again."""
    copy = image.transpose(transposition)
    copy.info = {key: copy.info[key] for key in copy.info if key not in _ORIENTATION_ENTRIES}
    return copy


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Converts 16-bit grey, or the 12-bit grey of some TIFF files."""
    bits = _tiff_tag(image, _TIFF_BITS_PER_SAMPLE)
    white = 4095 if bits == (12,) else 65535
    return _grey(image, np.asarray(image).astype(np.float64) * (255 / white))


def _from_integers(image: Image.Image) -> Image.Image:
    """Converts 32-bit grey: values of 16-bit files, or values from 0 to 255."""
    values = np.asarray(image)
    if image.format in _16_BITS_IN_MODE_I:
        return _grey(image, values.clip(0, 65535) / 257)
    if _within(values, 255):
        return _grey(image, values)
    raise _unknown_range(image, values, "0 to 255")


def _from_floats(image: Image.Image) -> Image.Image:
    """Converts float grey: values from 0 to 1, or from 0 to 255."""
    values = np.asarray(image)
    for white in (1, 255):
        if _within(values, white):
            return _grey(image, values * (255 / white))
    raise _unknown_range(image, values, "0 to 1 or 0 to 255")


_TO_8_BITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "I;16": _from_16_bits,
    "I;16L": _from_16_bits,
    "I;16B": _from_16_bits,
    "I;16N": _from_16_bits,
    "I": _from_integers,
    "F": _from_floats,
}


def _grey(image: Image.Image, levels: _Values) -> Image.Image:
    """Returns levels (H, W) from 0 to 255 as an image of mode L."""
    if _tiff_tag(image, _TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO:
        levels = 255 - levels  # Pillow does this only up to 8 bits.
    return Image.fromarray(np.rint(levels).astype(np.uint8))


def _within(values: _Values, white: int) -> bool:
    """Returns whether all values are from 0 to `white`. NaN is not."""
    return bool(((values >= 0) & (values <= white)).all())


def _unknown_range(image: Image.Image, values: _Values, expected: str) -> ImageError:
    return ImageError(
        f"has mode {image.mode!r} with values from {values.min():g} to {values.max():g}; expected "
        f"{expected}. Scale it and save it with 8 bits per channel"
    )


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    """Returns the value of a TIFF tag, or None if the picture is no TIFF file or lacks the tag."""
    return getattr(image, "tag_v2", {}).get(tag)
