"""Picture formats: which endings count in a folder, and decoders that are not always installed."""

from collections.abc import Callable
from typing import NamedTuple

# Endings of the files in a folder that are taken for pictures. Pillow registers more, but those
# are documents, videos, scientific data, fonts and cursors (.pdf, .eps, .mpg, .h5, .fits, .cur).
# fmt: off
PICTURE_ENDINGS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo",
    ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx",
    ".png", ".apng", ".gif", ".webp", ".tif", ".tiff",
    ".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif",
    ".bmp", ".dib", ".ico", ".dds", ".pcx", ".psd", ".qoi", ".sgi", ".tga",
    ".pbm", ".pgm", ".ppm", ".pnm", ".pfm",
))
# fmt: on


class OptionalDecoder(NamedTuple):
    """A format that Pillow reads only if something else is installed.

    Attributes:
        name: The name of the format.
        brands: The brands that name it in a file's `ftyp` box (ISO/IEC 14496-12).
        remedy: What to install.
        register: Makes the decoder known to Pillow, or raises ImportError.
    """

    name: str
    brands: frozenset[bytes]
    remedy: str
    register: Callable[[], None]


def _register_heif() -> None:
    from pillow_heif import register_heif_opener  # noqa: PLC0415

    register_heif_opener()


def _register_avif() -> None:
    from PIL import AvifImagePlugin  # noqa: PLC0415

    if not AvifImagePlugin.SUPPORTED:
        raise ImportError("Pillow was built without AVIF")


# ISO/IEC 23008-12, annex B, and the AV1 Image File Format, section 6.
_DECODERS = (
    OptionalDecoder(
        "HEIC",
        frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")),
        "pip install 'hfclip[heic]'",
        _register_heif,
    ),
    OptionalDecoder(
        "AVIF", frozenset((b"avif", b"avis")), "pip install 'Pillow>=11.3'", _register_avif
    ),
)
# Bytes at the beginning of a file that hold its `ftyp` box's brand.
BEGINNING = 12


def optional_decoder(beginning: bytes) -> OptionalDecoder | None:
    """Returns the optional decoder that a file with this beginning needs, if any."""
    if beginning[4:8] != b"ftyp":
        return None
    brand = beginning[8:BEGINNING]
    return next((decoder for decoder in _DECODERS if brand in decoder.brands), None)
