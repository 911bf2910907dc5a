"""References to pictures: small picklable objects that read a picture's bytes on demand.

The bytes of a picture are never kept with a data set. A picture in a tar is a range of the file. A
picture in a Parquet file is a row of a row group. The last row groups stay in a small cache,
because Parquet cannot read a single row.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow.parquet

# Size of all row groups in the cache, in bytes. The row group in use always stays.
_MOST_CACHED = 256 * 2**20


@dataclass(frozen=True, slots=True)
class FileImage:
    """A picture in a file of its own."""

    path: str

    def read(self) -> bytes:
        """Returns the bytes of the picture.

        Raises:
            OSError: The file cannot be read.
        """
        return Path(self.path).read_bytes()


@dataclass(frozen=True, slots=True)
class TarImage:
    """A picture in an uncompressed tar: `size` bytes from `offset` on."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Returns the bytes of the picture.

        Raises:
            OSError: The file cannot be read.
            DataError: The file ends before the picture does.
        """
        with Path(self.path).open("rb", buffering=0) as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise DataError(f"{self.path} ends before byte {self.offset + self.size:,}.")
        return content


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """A picture in a Parquet file: a binary value, or the field `bytes` of a struct.

    Attributes:
        path: The file.
        row_group: The index of the row group.
        row: The index of the row in its row group.
        column: The name of the column.
        field: The name of the field with the bytes if the column is a struct, else None.
    """

    path: str
    row_group: int
    row: int
    column: str
    field: str | None = None

    def read(self) -> bytes:
        """Returns the bytes of the picture. Reads its whole row group if it is not in the cache.

        Raises:
            OSError: The file cannot be read.
            DataError: The file is damaged, or has changed since it was listed.
        """
        leaf = self.column if self.field is None else f"{self.column}.{self.field}"
        values = _row_groups.get(self.path, self.row_group, leaf)
        content = values[self.row].as_py() if self.row < len(values) else None
        if self.field is not None and content is not None:
            content = content[self.field]
        if not isinstance(content, bytes):
            raise DataError("the row holds no picture")
        return content


ImageRef: TypeAlias = FileImage | TarImage | ParquetImage


class _RowGroups:
    """Keeps one column of the row groups that were read last. Threads and forks may share it."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()  # a fork may copy a lock that another thread holds
        self._kept: OrderedDict[tuple[str, int, str], Any] = OrderedDict()

    def get(self, path: str, row_group: int, leaf: str) -> Any:
        """Returns a leaf column of a row group as an Arrow array."""
        key = (path, row_group, leaf)
        with self._lock:  # also while it reads, so that two threads do not read the same group
            if key not in self._kept:
                values = _read_column(path, row_group, leaf)
                self._make_room(values)
                self._kept[key] = values
            self._kept.move_to_end(key)
            return self._kept[key]

    def _make_room(self, values: Any) -> None:
        kept = self._kept
        while kept and values.nbytes + sum(other.nbytes for other in kept.values()) > _MOST_CACHED:
            kept.popitem(last=False)


_row_groups = _RowGroups()


def _read_column(path: str, row_group: int, leaf: str) -> Any:
    with open_parquet(Path(path)) as file:
        try:
            return file.read_row_group(row_group, columns=[leaf], use_threads=False).column(0)
        except (OSError, ValueError, IndexError) as error:
            raise DataError(f"{path} is damaged or has changed ({error}).") from error


def open_parquet(path: Path) -> "pyarrow.parquet.ParquetFile":
    """Opens a Parquet file.

    Raises:
        DataError: pyarrow is not installed, or the file is damaged.
        OSError: The file cannot be read.
    """
    try:
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise DataError(
            f'{path} is a Parquet file, which needs pyarrow: pip install "hfclip[finetune]"'
        ) from error
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the system
            raise
        raise DataError(f"{path} is not a Parquet file, or is damaged ({error}).") from error
