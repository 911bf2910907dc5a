"""Reads inputs of a collection again, as small pictures."""

from PIL import Image

from hfclip.embedding.items import Item
from hfclip.errors import HfclipError, ImageError
from hfclip.images.display import blended
from hfclip.images.reading import open_picture


def read_thumbnail(
    item: Item,
    side: int,
    paper: tuple[int, int, int],
    *,
    auto_orient: bool = True,
    max_pixels: int,
) -> Image.Image | str:
    """Returns a small picture of an input in RGB, or the reason why there is none.

    Args:
        item: The input.
        side: The longest side of the result, in pixels.
        paper: The colour below transparent pixels.
        auto_orient: Whether to apply the EXIF orientation.
        max_pixels: The largest number of pixels of a picture that is decoded.
    """
    key = item.key

    def check(image: Image.Image) -> None:
        if image.width * image.height > max_pixels:
            raise ImageError(f"{key}: more than {max_pixels:,} pixels.")
        image.draft("RGB", (2 * side, 2 * side))  # lets a JPEG be decoded smaller

    try:
        if item.error is not None:
            return item.error
        if item.image is None:
            return "a text, not a picture"
        content = item.content()
        with open_picture(content, auto_orient=auto_orient, name=key, on_open=check) as image:
            image.thumbnail((side, side))
            return blended(image, paper).convert("RGB")
    except MemoryError:
        return "too large for the memory of this machine"
    except (OSError, HfclipError) as error:
        return str(error).removeprefix(f"{key}: ")
