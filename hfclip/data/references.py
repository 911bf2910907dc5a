"""References to pictures: small picklable objects that read a picture's bytes on demand.

The bytes of a picture are never kept with a data set. A picture in a tar is a range of the file. A
picture in a Parquet file is a row of a row group. The last row groups stay in a small cache,
because Parquet cannot read a single row.
"""

import os
import posixpath
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from hfclip.data.parquet_files import open_parquet, read_value
from hfclip.data.remote import read_url
from hfclip.data.urls import check_url, is_remote, protocol_of, redacted, without_local_protocol
from hfclip.errors import DataError

# Size of all row groups in the cache, in bytes. The row group in use always stays.
_MOST_CACHED = 256 * 2**20
# The protocols that a list or table from elsewhere may name.
_SHARED = frozenset(("http", "https", "hf", "s3", "gs", "gcs", "az", "abfs", "abfss"))


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
class RemoteImage:
    """A picture at a URL that fsspec reads."""

    url: str

    def read(self) -> bytes:
        """Returns the bytes of the picture.

        Raises:
            DataError: The picture does not exist, or the request fails.
        """
        return read_url(self.url)


@dataclass(frozen=True, slots=True)
class TarImage:
    """A picture in an uncompressed tar, a path or a URL: `size` bytes from `offset` on."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Returns the bytes of the picture.

        Raises:
            OSError: The file cannot be read.
            DataError: The file ends before the picture does, or a request fails.
        """
        if is_remote(self.path):
            content = read_url(self.path, self.offset, self.offset + self.size)
        else:
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


@dataclass(frozen=True, slots=True)
class ParquetRow:
    """A picture in a Parquet file of any size, on this machine or at a URL.

    Reading rows in their order, also by several threads, keeps memory flat: only a few batches of
    rows are in memory. Reading rows in a random order is slow. `ParquetImage` is for that.

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
        """Returns the bytes of the picture. Where these are null, reads the file at `path`.

        The field `path` of a struct is relative to the folder of the Parquet file.

        Raises:
            OSError: A file cannot be read.
            DataError: The row holds no picture, or the file is damaged or has changed.
        """
        content = self._field(self.field)
        if content is None and self.field is not None:
            path = self._field("path")
            if isinstance(path, str) and path:
                return beside(self.path, path).read()
        if not isinstance(content, bytes):
            raise DataError("the row holds no picture")
        return content

    def _field(self, field: str | None) -> Any:
        leaf = self.column if field is None else f"{self.column}.{field}"
        value = read_value(self.path, self.row_group, self.row, leaf)
        return value if field is None or value is None else value[field]


def beside(file: str, path: str) -> FileImage | RemoteImage:
    """Returns the picture that a list or table names. Does not check whether it exists.

    A local file may name any path or URL. A file from elsewhere may name paths in its folder, and
    URLs that are not on this machine.

    Args:
        file: The path or URL of the list or table. Its folder is that of relative paths.
        path: A path or a URL.

    Raises:
        DataError: The path is empty, leaves the folder of a remote file, or has a password in it.
    """
    path = path.strip()
    if not path or "\0" in path:
        raise DataError("the path of the picture is empty or malformed")
    protocol = protocol_of(path)
    if is_remote(path):
        if is_remote(file) and protocol not in _SHARED | {protocol_of(file)}:
            raise DataError(f"{redacted(path)} is a URL that a remote file may not name")
        check_url(path)
        return RemoteImage(path)
    if is_remote(file):
        inside = posixpath.normpath(path.replace("\\", "/"))
        if protocol is not None or inside.startswith(("/", "..")) or inside == ".":
            raise DataError(f"{path} is outside the folder of {file}")
        return RemoteImage(f"{file.rpartition('/')[0]}/{inside}")
    path = without_local_protocol(path)
    found = os.path.abspath(os.path.join(os.path.dirname(file), path))  # noqa: PTH100, PTH118, PTH120  # keeps links
    if "\\" in path and os.sep == "/" and not Path(found).exists():
        return beside(file, path.replace("\\", "/"))
    return FileImage(found)


ImageRef: TypeAlias = FileImage | RemoteImage | TarImage | ParquetImage | ParquetRow


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
