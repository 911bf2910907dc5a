"""Reads CSV and TSV files: finds the delimiter, and keeps every cell as the text that it is."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, NamedTuple

from hfclip.data.columns import SAMPLE, looks_like_picture
from hfclip.data.parquet_files import DamagedFileError
from hfclip.errors import DataError

# Characters at the beginning of a file that show its format.
_SAMPLE_SIZE = 16 * 2**20
_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


@dataclass
class Cells:
    """The rows of a table. Each row and problem has the number of its first line.

    Attributes:
        names: The columns. Without a header these are "1", "2" and so on.
        rows: The cells of each row, by column.
        problems: Why a row cannot be read.
        note: The format in words.
    """

    names: tuple[str, ...]
    rows: list[tuple[int, dict[str, object]]] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    note: str = ""


class _Dialect(NamedTuple):
    """A delimiter, and whether quotation marks around a cell have a meaning."""

    delimiter: str
    quotes: bool

    @property
    def delimiter_name(self) -> str:
        """The name of the delimiter in errors."""
        return _DELIMITERS.get(self.delimiter, repr(self.delimiter))

    def rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Yields the line number and the cells of each row that is not empty.

        Raises:
            csv.Error: A quotation mark is not closed, or a cell is too long.
        """
        yield from self.rows_of(io.StringIO(text, newline=""))

    def rows_of(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yields the same as `rows` for lines that keep their ends."""
        reader = csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE,
            strict=True,
        )
        line = 1
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1


def read_delimited(path: Path, delimiter: str | None = None) -> Cells:
    """Reads a CSV or TSV file in UTF-8, or in UTF-16 with a byte order mark.

    Args:
        path: The file.
        delimiter: The delimiter, or None to find it among comma, tab, semicolon and bar.

    Raises:
        DataError: The file is no such table, or its delimiter cannot be found.
        OSError: The file cannot be read.
    """
    text = _decoded(path)
    _check(path, text, delimiter)
    dialect, rows = _all_rows(path, text, _find_dialect(path, text, delimiter))
    return _with_header(path, rows, dialect)


def stream_delimited(
    text: io.TextIOWrapper, what: str, delimiter: str | None = None
) -> tuple[tuple[str, ...], Iterator[tuple[int, dict[str, object] | str]]]:
    """Reads a table as `read_delimited` does, but row by row.

    Args:
        text: The file as `open_text` returns it.
        what: Its path or URL in errors.
        delimiter: The delimiter, or None to find it.

    Returns:
        The columns, and an iterator that yields the first line of each row, and its cells or why
        it has none. The iterator raises a DamagedFileError where no more rows can be read.

    Raises:
        DataError: The file is no such table, or its delimiter cannot be found.
        OSError: The file cannot be read.
    """
    try:
        sample = text.read(_SAMPLE_SIZE)
        sample += text.readline()
        is_whole = not (rest := text.readline())
    except UnicodeDecodeError as error:
        raise _not_utf8(what, error) from None
    _check(what, sample, delimiter)
    dialect = _find_dialect(what, sample, delimiter)
    if is_whole:  # then an unclosed quotation mark may be found to be text
        with suppress(DataError):
            dialect, _ = _all_rows(what, sample, dialect)
    rows = dialect.rows_of(chain(io.StringIO(sample, newline=""), [rest] if rest else [], text))
    first = next(rows)
    names, has_header = _header(what, first[1])
    return names, _streamed(what, names, dialect, rows if has_header else chain([first], rows))


def _streamed(
    what: str, names: tuple[str, ...], dialect: _Dialect, rows: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, dict[str, object] | str]]:
    line = 1
    try:
        for line, cells in rows:
            yield line, _cells(names, cells, dialect)
    except csv.Error as error:
        raise DamagedFileError(_unreadable(what, f"after line {line}", error)) from None
    except UnicodeDecodeError as error:
        raise _not_utf8(what, error, f" after line {line}") from None


def open_text(file: IO[bytes]) -> io.TextIOWrapper:
    """Returns a text in UTF-8, or in UTF-16 with a byte order mark. Its lines keep their ends."""
    mark = file.read(2)
    file.seek(0)
    is_utf16 = mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return io.TextIOWrapper(file, "utf-16" if is_utf16 else "utf-8-sig", newline="")


def _not_utf8(what: str, error: UnicodeDecodeError, place: str = "") -> DamagedFileError:
    return DamagedFileError(
        f"{what} is not UTF-8{place} ({error.reason}). Save it as UTF-8, for example with "
        "`iconv -f LATIN1 -t UTF-8`."
    )


def _check(path: Path | str, text: str, delimiter: str | None) -> None:
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise DataError(f"The delimiter is {delimiter!r}; expected one character, such as a comma.")
    if not text.strip():
        raise DataError(f"{path} is empty; expected a header and rows.")


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8: byte {content[error.start]:#04x} in line {line}. Save it as "
            f"UTF-8, for example with `iconv -f LATIN1 -t UTF-8`."
        ) from None


def _find_dialect(path: Path | str, text: str, delimiter: str | None) -> _Dialect:
    """Finds the delimiter that gives each of the first rows the same number of cells.

    If several do, the one that separates a picture's file name from the rest is meant. If none
    does, most rows must have as many cells as the first.
    """
    delimiters = [delimiter] if delimiter else list(_DELIMITERS)
    dialects = [_Dialect(mark, quotes) for mark in delimiters for quotes in (True, False)]
    samples = {dialect: sample for dialect in dialects if (sample := _sample(text, dialect))}
    for least in (1.0, 0.5):
        fits = [dialect for dialect, rows in samples.items() if _share(rows) >= least]
        fits = [dialect for dialect in fits if dialect.quotes or (dialect[0], True) not in fits]
        if len(fits) > 1:
            fits = [dialect for dialect in fits if _names_pictures(samples[dialect])] or fits
        if len(fits) == 1:
            return fits[0]
        if fits:
            found = " and ".join(_DELIMITERS.get(fit.delimiter, fit.delimiter) for fit in fits)
            raise DataError(
                f"{path}: the cells could be separated by {found}. Name the character with "
                "delimiter (--delimiter)."
            )
    raise DataError(
        f"{path} is no table: neither comma, tab, semicolon nor bar gives its rows the same number "
        "of cells, two or more. Quote cells that contain the delimiter, or name it with delimiter "
        "(--delimiter)."
    )


def _sample(text: str, dialect: _Dialect) -> list[list[str]]:
    """Returns the first rows, or none if they cannot be read."""
    try:
        return [cells for _, cells in islice(dialect.rows(text), SAMPLE)]
    except csv.Error:
        return []


def _share(rows: list[list[str]]) -> float:
    """Returns the share of rows with as many cells as the first; 0 if that has only one cell."""
    width = len(rows[0])
    return sum(len(cells) == width for cells in rows) / len(rows) if width > 1 else 0.0


def _names_pictures(rows: list[list[str]]) -> bool:
    return any(sum(map(looks_like_picture, cells)) == 1 for cells in rows[:2])


def _all_rows(
    path: Path | str, text: str, dialect: _Dialect
) -> tuple[_Dialect, list[tuple[int, list[str]]]]:
    """Reads all rows. A mark that is not closed is text if every row then has the same width."""
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend(dialect.rows(text))
    except csv.Error as error:
        plain = _Dialect(dialect.delimiter, quotes=False)
        if dialect.quotes and _is_even(text, plain):
            return plain, list(plain.rows(text))
        after = f"after line {rows[-1][0]}" if rows else "in line 1"
        raise DataError(_unreadable(path, after, error)) from None
    return dialect, rows


def _unreadable(path: Path | str, place: str, error: csv.Error) -> str:
    return (
        f"{path} cannot be read {place}: {error}. Close every quotation mark, and double those "
        'inside a quoted cell: "a 5"" pipe".'
    )


def _is_even(text: str, dialect: _Dialect) -> bool:
    """Returns whether all rows can be read and have the same number of cells."""
    try:
        return _share([cells for _, cells in dialect.rows(text)]) == 1
    except csv.Error:
        return False


def _with_header(path: Path, rows: list[tuple[int, list[str]]], dialect: _Dialect) -> Cells:
    names, has_header = _header(path, rows[0][1])
    note = f"{path.name}: delimiter {dialect.delimiter_name}"
    note += "" if dialect.quotes else ", quotation marks are text"
    note += "" if has_header else ", no header (columns are numbered from 1)"
    table = Cells(names, note=note)
    for line, values in rows[1 if has_header else 0 :]:
        cells = _cells(names, values, dialect)
        if isinstance(cells, str):
            table.problems.append((line, cells))
        else:
            table.rows.append((line, cells))
    return table


def _header(path: Path | str, first: list[str]) -> tuple[tuple[str, ...], bool]:
    """Returns the names of the columns, and whether the first row holds them."""
    has_header = not any(map(looks_like_picture, first))
    names = tuple(first) if has_header else tuple(str(n) for n in range(1, len(first) + 1))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{path} has more than one column named {repeated[0]!r}. Rename them.")
    return names, has_header


def _cells(names: tuple[str, ...], values: list[str], dialect: _Dialect) -> dict[str, object] | str:
    """Returns the cells of a row by column, or why there are none."""
    width = len(names)
    if len(values) < width or any(values[width:]):
        expected = f"{len(values)} cells; the header has {width}"
        return f"the row has {expected}. Quote cells that contain a {dialect.delimiter_name}"
    return dict(zip(names, values[:width], strict=True))
