"""The file endings of pictures, and the formats that need an optional decoder."""

from collections.abc import Callable
from typing import NamedTuple

# A file in a folder counts as a picture if it has one of these endings. Pillow registers more, for
# documents, videos, scientific data, fonts and cursors (.pdf, .eps, .mpg, .h5, .fits, .cur).
# fmt: off
PICTURE_ENDINGS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo",
    ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx",
    ".png", ".apng", ".gif", ".webp", ".tif", ".tiff",
    ".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif",
    ".bmp", ".dib", ".ico", ".dds", ".pcx", ".psd", ".qoi", ".sgi", ".tga",
    ".pbm", ".pgm", ".ppm", ".pnm", ".pfm",
))
# RAW files of cameras. Pillow would read some as TIFF and return the small preview in them.
RAW_ENDINGS = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
))
# fmt: on
RAW_REASON = "a camera's RAW file, which is not read. Export it as JPEG."


class OptionalDecoder(NamedTuple):
    """A format that Pillow reads only with an optional decoder.

    Attributes:
        name: The name of the format.
        brands: The brands of the format in the `ftyp` box of a file (ISO/IEC 14496-12).
        remedy: The command that installs the decoder.
        register: A function that registers the decoder with Pillow, or raises ImportError.
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
# Number of bytes at the beginning of a file that include the brand in its `ftyp` box.
BEGINNING = 12


def optional_decoder(beginning: bytes) -> OptionalDecoder | None:
    """Returns the optional decoder for a file with these first bytes, or None."""
    if beginning[4:8] != b"ftyp":
        return None
    brand = beginning[8:BEGINNING]
    return next((decoder for decoder in _DECODERS if brand in decoder.brands), None)
