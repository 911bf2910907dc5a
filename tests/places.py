"""Places for the sources of tests: a folder on the disk, and fsspec's file system in memory."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hfclip.embedding.items import Item
from hfclip.embedding.listing import list_items
from hfclip.embedding.settings import Listing
from hfclip.errors import DataError

LISTING = Listing()
# What a test compares: the key, the content or the error, and the caption or text.
Seen = tuple[str, bytes | str, str | None]


class Place:
    """Writes files and names them as a person would."""

    def __init__(self, kind: Literal["local", "memory"], folder: Path) -> None:
        self.kind = kind
        self.folder = folder

    def name(self, path: str) -> str:
        """Returns a relative path, or a URL."""
        return path if self.kind == "local" else f"memory://{path}"

    def write(self, path: str, content: bytes | str = b"") -> str:
        """Writes a file and returns its name."""
        content = content.encode() if isinstance(content, str) else content
        if self.kind == "local":
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(content)
        else:
            _memory().pipe_file(f"/{path}", content)
        return self.name(path)

    def write_lines(self, path: str, rows: Sequence[object]) -> str:
        return self.write(path, "".join(f"{json.dumps(row)}\n" for row in rows))

    def write_parquet(self, path: str, columns: dict[str, Any], **options: Any) -> str:
        import pyarrow as pa
        from pyarrow import parquet

        file = io.BytesIO()
        parquet.write_table(pa.table(columns), file, **options)
        return self.write(path, file.getvalue())

    def remove(self, path: str) -> None:
        if self.kind == "local":
            (self.folder / path).unlink()
        else:
            _memory().rm_file(f"/{path}")


def _memory() -> Any:
    from fsspec import filesystem

    return filesystem("memory")


def forget_memory() -> None:
    """Removes all files in memory."""
    system = _memory()
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def tar(members: Sequence[tuple[str, bytes]]) -> bytes:
    """Returns a tar with these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return file.getvalue()


def listed(*sources: str, listing: Listing = LISTING) -> list[Item]:
    return list(list_items(sources, listing))


def seen(*sources: str, listing: Listing = LISTING) -> list[Seen]:
    """Returns the key, the content or error, and the caption of each item."""
    return [(item.key, _content(item), item.text) for item in listed(*sources, listing=listing)]


def _content(item: Item) -> bytes | str:
    try:
        return item.content()
    except (DataError, OSError) as error:
        return str(error)
