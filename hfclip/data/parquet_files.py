"""Opens Parquet files, on this machine or by URL, and reads their rows in order with flat memory.

Parquet cannot read a single row. A row group may hold many gigabytes of pictures, so it is decoded
in small batches, of which the last ones are kept. Several threads may read neighbouring rows.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hfclip.data.asking import unreadable
from hfclip.data.remote import open_url
from hfclip.data.urls import is_remote
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

# Target size of a batch, in bytes of its pictures, and limits for its rows.
_BATCH = 4 * 2**20
_FEWEST_ROWS, _MOST_ROWS = 16, 4096
# Bytes of batches that stay while some of their rows were not read yet, as threads differ in pace.
_MOST_KEPT = 64 * 2**20
# Batches that stay although they were read, because a row may be read twice.
_NEWEST_KEPT = 2
# Row groups that are read at once. Others are closed.
_GROUPS_KEPT = 3
# Bytes that are read from the file at once.
_BUFFER = 2**20


class DamagedFileError(DataError):
    """A file is damaged from some point on. What stands before it can be used."""


def open_parquet(
    path: Path | str, extra: str = "finetune", source: "Path | IO[bytes] | None" = None
) -> "pyarrow.parquet.ParquetFile":
    """Opens a Parquet file.

    Args:
        path: The path, or a URL as a string.
        extra: The extra of hfclip that the error names if pyarrow is not installed.
        source: What is read in place of the path, which is then only for errors.

    Raises:
        DataError: pyarrow is not installed.
        DamagedFileError: The file is damaged.
        OSError: The file cannot be read.
    """
    try:
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise DataError(
            f'{path} is a Parquet file, which needs pyarrow: pip install "hfclip[{extra}]"'
        ) from error
    if source is None:
        source = open_url(path) if isinstance(path, str) and is_remote(path) else Path(path)
    try:
        # Without pre_buffer, which would read whole row groups.
        return parquet.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the system
            raise
        raise DamagedFileError(f"{path} is not a Parquet file, or is damaged ({error}).") from error


def read_value(path: str, row_group: int, row: int, leaf: str) -> Any:
    """Returns one value of a column, or None if there is no such column.

    Fast if rows are read about in their order.

    Args:
        path: The path or URL of the file.
        row_group: The index of the row group.
        row: The index of the row in it.
        leaf: The column, or a field of it as "image.bytes", which gives {"bytes": value}.

    Raises:
        DataError: The file is damaged, or has changed since it was listed.
        OSError: The file cannot be read.
    """
    return _streams.get(path, row_group, leaf).value(row)


@dataclass
class _Batch:
    """Consecutive rows, and those of them that were not read yet."""

    start: int
    values: Any
    unread: set[int]


class _Stream:
    """Reads one column of one row group from its beginning, and keeps the last batches."""

    def __init__(self, path: str, row_group: int, leaf: str) -> None:
        self._path, self._row_group, self._leaf = path, row_group, leaf
        self._lock = threading.Lock()
        self._batches: Iterator[pyarrow.RecordBatch] | None = None
        self._kept: list[_Batch] = []
        self._end = 0
        self._broken: tuple[int, str] | None = None

    def value(self, row: int) -> Any:
        with self._lock:
            if self._broken is not None and row >= self._broken[0]:  # not decoded up to there again
                raise DataError(self._broken[1])
            try:
                return self._value(row)
            except DataError:
                self._batches = None
                raise
            except (OSError, ValueError, IndexError, NotImplementedError) as error:
                self._batches = None
                if is_remote(self._path) and isinstance(error, ConnectionError | TimeoutError):
                    raise unreadable(self._path, error) from None
                self._broken = (self._end, f"{self._path} is damaged or has changed ({error}).")
                raise DataError(self._broken[1]) from error
            except Exception as error:
                self._batches = None
                if not is_remote(self._path):
                    raise
                raise unreadable(self._path, error) from None  # clients raise many types

    def _value(self, row: int) -> Any:
        if self._batches is None or not any(batch.start <= row for batch in self._kept):
            self._kept, self._end = [], 0
            self._batches = self._read()
        while row >= self._end:
            read = next(self._batches, None)
            if read is None:
                raise IndexError("the row does not exist")
            if read.num_columns == 0:
                return None
            self._drop()
            rows = range(self._end, self._end + read.num_rows)
            self._kept.append(_Batch(self._end, read.column(0), set(rows)))
            self._end = rows.stop
        batch = next(batch for batch in reversed(self._kept) if batch.start <= row)
        if row - batch.start >= len(batch.values):  # its batch was dropped
            self._batches = None
            return self._value(row)
        batch.unread.discard(row)
        if not batch.unread:
            self._drop()
        return batch.values[row - batch.start].as_py()

    def _drop(self) -> None:
        """Drops all but the newest batches that were read, and others if they are too large."""
        newest = self._kept[-_NEWEST_KEPT:]
        self._kept = [batch for batch in self._kept[:-_NEWEST_KEPT] if batch.unread] + newest
        while sum(batch.values.nbytes for batch in self._kept) > _MOST_KEPT and self._kept[1:]:
            del self._kept[0]

    def _read(self) -> "Iterator[pyarrow.RecordBatch]":
        with open_parquet(self._path, "embed") as file:
            rows = _rows_of_batch(file.metadata.row_group(self._row_group), self._leaf)
            yield from file.iter_batches(
                rows, row_groups=[self._row_group], columns=[self._leaf], use_threads=False
            )


def _rows_of_batch(group: "pyarrow.parquet.RowGroupMetaData", leaf: str) -> int:
    """Returns the number of rows whose values have about `_BATCH` bytes."""
    chunks = (group.column(index) for index in range(group.num_columns))
    size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema == leaf)
    rows: int = _BATCH * max(group.num_rows, 1) // max(size, 1)
    return max(_FEWEST_ROWS, min(_MOST_ROWS, rows))


class _Streams:
    """The row groups that were read last. Threads and forks may share it."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()  # a fork may copy a lock that another thread holds
        self._kept: OrderedDict[tuple[object, ...], _Stream] = OrderedDict()

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def get(self, path: str, row_group: int, leaf: str) -> _Stream:
        found = None if is_remote(path) else Path(path).stat()  # a file may be replaced
        version = found and (found.st_ino, found.st_size, found.st_mtime_ns)
        key = (path, row_group, leaf, version)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = _Stream(path, row_group, leaf)
                if len(self._kept) > _GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


_streams = _Streams()


def forget_rows() -> None:
    """Closes all files, so that files which were replaced are read again."""
    _streams.clear()
