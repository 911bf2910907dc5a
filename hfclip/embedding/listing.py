"""Lists the inputs of all sources: recognizes folders, patterns, lists, tars and tables."""

from collections.abc import Iterator, Sequence

from hfclip.data.asking import unreadable
from hfclip.data.contents import PARQUET_ENDINGS, TAR_ENDINGS
from hfclip.data.parquet_files import DamagedFileError, forget_rows
from hfclip.data.references import FileImage, RemoteImage
from hfclip.data.remote import FileInfo, forget_commits
from hfclip.data.tables import TABLE_ENDINGS
from hfclip.data.urls import asks_much
from hfclip.embedding.folders import exists, expand, folder_items, is_pattern, is_picture_name
from hfclip.embedding.items import Item
from hfclip.embedding.locations import Location, ending_of, locate, picture_item
from hfclip.embedding.parquet_rows import parquet_items
from hfclip.embedding.settings import Listing
from hfclip.embedding.table_rows import table_items
from hfclip.embedding.tar_examples import tar_items
from hfclip.embedding.text_lines import path_lines, text_lines
from hfclip.errors import DataError, HfclipError

_LIST = ".txt"
# Hashes of 60 bits. Python stores them in 32 bytes, and longer ones in 48.
_HASH = 2**60 - 1


def list_items(sources: Sequence[str], listing: Listing) -> Iterator[Item]:
    """Lists the inputs of sources one by one. Opens no picture.

    Sources keep their order. A folder is sorted by path; a tar, table or text file keeps its order.
    An input that is named twice is listed once. A file that is damaged from some point on gives the
    inputs before it, and one item with the error for the rest.

    Args:
        sources: Paths, patterns and URLs.
        listing: The options.

    Raises:
        DataError: A source does not exist, is of an unknown kind, is ambiguous, or holds nothing
            that can be listed; or two different inputs have one key.
    """
    forget_rows()
    forget_commits()
    damaged: list[Item] = []
    items = (item for source in sources for item in _source_items(source, listing, damaged))
    is_listed = False
    for item in items if _is_one_folder(sources) else _distinct(items):
        is_listed |= not damaged or item is not damaged[-1]
        yield item
    if damaged and not is_listed:
        raise DataError(str(damaged[0].error))
    if not is_listed:
        named = [locate(source).key for source in sources]
        raise DataError(
            f"{' and '.join(named)} holds no input." if named else "Name at least one source."
        )


def _is_one_folder(sources: Sequence[str]) -> bool:
    """Returns whether all keys are different because they are the paths in one folder."""
    return len(sources) == 1 and exists(locate(sources[0])) == "folder"


def _distinct(items: Iterator[Item]) -> Iterator[Item]:
    """Yields each input once.

    Raises:
        DataError: Two different inputs have one key.
    """
    seen: dict[int, int] = {}  # hashes, because a collection may have many millions of keys
    for item in items:
        key = hash(item.key) & _HASH
        identity = hash((item.image, item.text, item.error)) & _HASH
        known = seen.get(key)
        if known == identity:
            continue
        if known is not None:
            raise DataError(
                f"Two inputs have the key {item.key!r}. Rename one of them, or name a column with "
                "unique values as the key column."
            )
        seen[key] = identity
        yield item


def _source_items(source: str, listing: Listing, damaged: list[Item]) -> Iterator[Item]:
    """Yields the inputs of a source. Adds the item of each damaged file to `damaged`."""
    location = locate(source)
    found = exists(location)
    if found is None and is_pattern(source):
        yield from _pattern_items(source, listing, damaged)
    elif found is None:
        raise DataError(f"{location.key} does not exist.")
    elif found == "file":
        yield from _guarded(location, _file_items(location, listing), damaged)
    else:
        _check_folder(location, listing)
        try:
            yield from folder_items(location)
        except OSError as error:
            raise DataError(
                f"{location.key} cannot be listed ({error.strerror or error})."
            ) from error


def _pattern_items(source: str, listing: Listing, damaged: list[Item]) -> Iterator[Item]:
    """Yields the inputs of the files that match.

    If the pattern ends with an ending, all files are of this kind. Otherwise only pictures count,
    as in a folder, because files beside them belong to them.
    """
    ends = ending_of(source) if "}" not in ending_of(source) else ""
    is_any = not ends or any(mark in ends for mark in "*?[{")
    for location, info in expand(source):
        if info is None and exists(location) == "folder":
            _check_folder(location, listing)
            yield from folder_items(location, may_be_empty=True)
        elif is_any and listing.kind == "images" and not is_picture_name(location.where):
            continue
        else:
            yield from _guarded(location, _file_items(location, listing, info), damaged)


def _check_folder(location: Location, listing: Listing) -> None:
    if listing.kind == "texts":
        raise DataError(
            f"{location.key} is a folder; expected a text file, or a table with a column of texts. "
            f"Give these files as '{location.key.rstrip('/')}/*.txt'."
        )


def _guarded(location: Location, items: Iterator[Item], damaged: list[Item]) -> Iterator[Item]:
    """Yields the items of a file, and one with the error for the rest if the file is damaged."""
    try:
        yield from items
    except DamagedFileError as error:
        reason = str(error)
    except OSError as error:
        if location.is_remote:
            raise unreadable(location.key, error) from None
        reason = f"{location.key} cannot be read ({error.strerror or error})."
    except HfclipError:
        raise
    except Exception as error:
        if not location.is_remote:
            raise
        raise unreadable(location.key, error) from None  # clients raise many types
    else:
        return
    damaged.append(Item(location.key, None, None, error=reason))
    yield damaged[-1]


def _file_items(
    location: Location, listing: Listing, info: FileInfo | None = None
) -> Iterator[Item]:
    """Returns the inputs of a file by its ending.

    Raises:
        DataError: The ending is of no known kind.
    """
    ending, name = location.ending, location.where.partition("?")[0].lower()
    is_text = listing.kind == "texts"
    if ending in PARQUET_ENDINGS:
        return parquet_items(location, listing)
    if ending in TABLE_ENDINGS:
        return table_items(location, listing)
    if is_text and not name.endswith(TAR_ENDINGS) and not is_picture_name(location.where):
        return text_lines(location)
    if is_text:
        raise DataError(
            f"{location.key} holds no texts; expected a text file with one text a line, or a CSV, "
            "TSV, JSONL or Parquet file with a column of texts."
        )
    if name.endswith(TAR_ENDINGS):
        return tar_items(location, listing)
    if ending == _LIST:
        return path_lines(location)
    if is_picture_name(location.where) or asks_much(location.where):
        return iter([_picture(location, info)])
    raise DataError(
        f"{location.key} is of an unknown kind; expected a picture, a folder, a pattern, a text "
        "file of paths (.txt), a tar, or a CSV, TSV, JSONL or Parquet file."
    )


def _picture(location: Location, info: FileInfo | None) -> Item:
    if not location.is_remote:
        return picture_item(location.key, FileImage(location.where))
    if info is None and not asks_much(location.where):
        info = location.info()
    return picture_item(location.key, RemoteImage(location.where), info)
