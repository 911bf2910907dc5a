"""Lists what a folder holds: tables, Parquet files, tars, COCO captions or metadata files."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfclip.data.coco import has_captions, is_coco
from hfclip.data.json_rows import load_json
from hfclip.data.tables import TABLE_ENDINGS
from hfclip.errors import DataError

PARQUET_ENDINGS = frozenset((".parquet", ".pq"))
# Compressed tars are listed too, so that the error says what to do.
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
METADATA_FILES = frozenset(("metadata.csv", "metadata.jsonl"))
# A table of a data set is in its folder or in a folder there, such as `data`.
_DEEPEST_TABLE = 2
# More JSON files belong to single pictures.
_MOST_JSON = 20


@dataclass
class Contents:
    """The data files in and below a folder, in order of name. Hidden files are left out.

    Attributes:
        metadata: The files metadata.csv and metadata.jsonl of the imagefolder format.
        tables: Other CSV, TSV and JSONL files nearest to the folder.
        json: JSON files in the folder and in the folders there.
        parquet: The Parquet files.
        tars: The tars.
    """

    metadata: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    json: list[Path] = field(default_factory=list)
    parquet: list[Path] = field(default_factory=list)
    tars: list[Path] = field(default_factory=list)

    def captions(self) -> list[tuple[Path, Any]]:
        """Returns the JSON files with captions in COCO's format, and their contents.

        If the name of a file contains "caption", no other file is read.
        """
        named = [path for path in self.json if "caption" in path.name.casefold()]
        found = []
        for path in named or (self.json if len(self.json) <= _MOST_JSON else []):
            try:
                content = load_json(path)
            except DataError:
                if path in named:
                    raise
                continue
            if is_coco(content) and has_captions(content):
                found.append((path, content))
        return found


def contents_of(folder: Path) -> Contents:
    """Lists the data files of a folder.

    Raises:
        OSError: The folder cannot be listed.
    """
    found = Contents()
    for parent, folders, names in os.walk(folder, onerror=_fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                _add(found, Path(parent, name))
    found.tables = _nearest(folder, found.tables)
    found.json = [path for path in found.json if _depth(folder, path) <= _DEEPEST_TABLE]
    return found


def _fail(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be listed: {error.strerror}.") from error


def _add(found: Contents, path: Path) -> None:
    ending = path.suffix.lower()
    if path.name.lower() in METADATA_FILES:
        found.metadata.append(path)
    elif ending in TABLE_ENDINGS:
        found.tables.append(path)
    elif ending in PARQUET_ENDINGS:
        found.parquet.append(path)
    elif path.name.lower().endswith(TAR_ENDINGS):
        found.tars.append(path)
    elif ending == ".json":
        found.json.append(path)


def _nearest(folder: Path, paths: list[Path]) -> list[Path]:
    least = min((_depth(folder, path) for path in paths), default=0)
    return [path for path in paths if _depth(folder, path) == least <= _DEEPEST_TABLE]


def _depth(folder: Path, path: Path) -> int:
    return len(path.relative_to(folder).parts)
