"""The inputs of a collection. An input that cannot be listed has an error and no content."""

from dataclasses import dataclass

from hfclip.data.references import ImageRef


@dataclass(frozen=True, slots=True)
class Item:
    """A picture, a picture with a caption, or a text.

    Attributes:
        key: The unique name: a path, or a row such as "table.csv:12".
        image: A reference that reads the picture's bytes, or None.
        text: The caption of the picture, or the text itself.
        size: The size of the content in bytes, or None if it is not known without reading it.
        mtime_ns: The time of the last change of the file, in nanoseconds, or None.
        error: Why the input cannot be read, or None if that is not known yet.
    """

    key: str
    image: ImageRef | None
    text: str | None
    size: int | None = None
    mtime_ns: int | None = None
    error: str | None = None

    def content(self) -> bytes:
        """Returns the bytes that identify the input: those of the picture, or of the text.

        Raises:
            OSError: The file cannot be read.
            DataError: The file is damaged or has changed.
        """
        return self.image.read() if self.image is not None else (self.text or "").encode()
