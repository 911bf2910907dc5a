"""The options of a listing."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Listing:
    """How the inputs of sources are found.

    Attributes:
        kind: Whether the inputs are pictures or texts.
        image_column: The column of the pictures in tables; the ending of the pictures in tars.
            None finds it.
        caption_column: The column of the captions or texts in tables; an ending or a field of
            .json in tars. None finds it.
        key_column: The column of the keys; in tars a field of .json. None for the number of the
            row, or the name of the example.
        delimiter: The character between the cells of a CSV file. None finds it.
        captions: Whether pictures have captions where a source has them.
    """

    kind: Literal["images", "texts"] = "images"
    image_column: str | None = None
    caption_column: str | None = None
    key_column: str | None = None
    delimiter: str | None = None
    captions: bool = True
