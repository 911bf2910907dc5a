"""Recognizes the format of a source and reads it: a folder, a file, a pattern, or the Hub."""

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hfclip.data.coco import add_coco, is_coco
from hfclip.data.contents import PARQUET_ENDINGS, TAR_ENDINGS, Contents, contents_of
from hfclip.data.folders import add_class_folders
from hfclip.data.json_rows import load_json
from hfclip.data.names import split_named, splits_of_files
from hfclip.data.parquet import add_parquet
from hfclip.data.records import Choices, Findings, Record, Split
from hfclip.data.references import FileImage
from hfclip.data.repository import PREFIX, download_data
from hfclip.data.rows import Place
from hfclip.data.tables import LoadedTable, add_table, load_table
from hfclip.data.tars import add_tar, expand_pattern, read_class_names
from hfclip.errors import DataError
from hfclip.hub.fetch import Access


def read_source(source: str | Path, choices: Choices, access: Access) -> Findings:
    """Lists the pictures of a source with their captions and labels. Opens no picture.

    Args:
        source: A folder, a file (CSV, TSV, JSONL, JSON, Parquet, tar), a pattern of tars, or
            "hf:org/name".
        choices: What a person chose where the content is ambiguous.
        access: The settings for the Hub.

    Raises:
        DataError: The source does not exist, its format is unknown, or it is ambiguous.
        HubError: A dataset cannot be downloaded.
    """
    findings = Findings()
    name = str(source)
    path = Path(source).expanduser()
    try:
        if name.startswith(PREFIX):
            _add_repository(name, choices, access, findings)
        elif path.is_dir():
            _add_folder(path, choices, findings)
        elif path.is_file():
            _add_file(path, choices, findings, boundary=None)
        elif glob.has_magic(name) or "{" in name:
            _add_pattern(str(path), choices, findings)
        else:
            raise _missing(name)
    except OSError as error:
        raise DataError(
            f"{error.filename or name} cannot be read: {error.strerror or error}."
        ) from error
    return findings


def _add_repository(name: str, choices: Choices, access: Access, findings: Findings) -> None:
    data = download_data(name, access)
    findings.notes.append(f"Dataset {data.repo_id} at commit {data.commit}.")
    if data.path.is_file():
        _add_file(data.path, choices, findings, boundary=data.folder)
        return
    try:
        _add_folder(data.path, choices, findings)
    except DataError as error:
        scripts = [path.name for path in data.path.glob("*.py")]
        if not scripts:
            raise
        raise DataError(
            f"{error} The repository has a loading script ({scripts[0]}), which is not executed. "
            f"Try the Hub's Parquet files: {PREFIX}{data.repo_id}@refs/convert/parquet."
        ) from error


def _add_file(path: Path, choices: Choices, findings: Findings, boundary: Path | None) -> None:
    place = Place(path.parent, boundary)
    ending = path.suffix.lower()
    if ending in PARQUET_ENDINGS:
        add_parquet(path, path.name, place, None, choices, findings)
    elif path.name.lower().endswith(TAR_ENDINGS):
        add_tar(path, path.name, None, choices, read_class_names(path.parent), findings)
    elif ending == ".json" and is_coco(content := load_json(path)):
        folders = [path.parent] if boundary else [path.parent, path.parent.parent]
        add_coco(path, content, folders, boundary, None, findings)
    else:
        add_table(load_table(path, choices), path.name, place, None, findings)


def _add_pattern(pattern: str, choices: Choices, findings: Findings) -> None:
    files = expand_pattern(pattern)
    if not files:
        raise DataError(f"No file matches {pattern}.")
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise DataError(f"{missing} does not exist; {pattern} stands for {len(files):,} files.")
    others = [file for file in files if not file.name.lower().endswith(TAR_ENDINGS)]
    if others:
        raise DataError(
            f"{pattern} matches {others[0]}, which is no tar. A pattern stands for WebDataset "
            "tars; name another format by its file or folder."
        )
    folder = files[0].parent
    inside = all(file.is_relative_to(folder) for file in files)
    _add_tars(files, folder if inside else Path(files[0].anchor), choices, findings)


def _add_folder(folder: Path, choices: Choices, findings: Findings) -> None:
    """Adds a folder of any format. Only one format may be there, besides pictures."""
    found = contents_of(folder)
    if found.metadata:
        _add_metadata(found.metadata, folder, choices, findings)
        return
    captions = found.captions()
    kinds = {
        "tars": [path.name for path in found.tars],
        "Parquet files": [path.name for path in found.parquet],
        "COCO captions": [path.name for path, _ in captions],
    }
    present = [f"{kind} ({names[0]})" for kind, names in kinds.items() if names]
    if len(present) > 1:
        raise DataError(f"{folder} holds {' and '.join(present)}. Name one of them instead.")
    if found.tars:
        _add_tars(found.tars, folder, choices, findings)
    elif found.parquet:
        _add_parquet_files(found.parquet, folder, choices, findings)
    elif captions:
        splits = splits_of_files([path for path, _ in captions], folder)
        for (path, content), split in zip(captions, splits, strict=True):
            parents = [folder] if path.parent == folder else [path.parent, folder]
            add_coco(path, content, parents, folder, split, findings)
    else:
        _add_tables_or_classes(found, folder, choices, findings)


def _add_tars(files: Sequence[Path], folder: Path, choices: Choices, findings: Findings) -> None:
    class_names = read_class_names(files[0].parent) or read_class_names(folder)
    for path, split in zip(files, splits_of_files(files, folder), strict=True):
        name = path.relative_to(folder).as_posix()
        add_tar(path, name, split, choices, class_names, findings)
    named = "" if class_names is None else f", {len(class_names)} class names in a file beside them"
    findings.notes.append(f"Format: {len(files):,} WebDataset tars{named}.")


def _add_parquet_files(
    files: Sequence[Path], folder: Path, choices: Choices, findings: Findings
) -> None:
    parents = sorted({_without_split(path.relative_to(folder).parent) for path in files})
    if len(parents) > 1:
        raise DataError(
            f"{folder} holds Parquet files in several folders: {', '.join(map(str, parents[:5]))}. "
            "They may be different data sets. Name one folder, as in hf:org/name/folder."
        )
    for path, split in zip(files, splits_of_files(files, folder), strict=True):
        name = path.relative_to(folder).as_posix()
        add_parquet(path, name, Place(path.parent, folder), split, choices, findings)


def _without_split(path: Path) -> Path:
    return Path(*(part for part in path.parts if not split_named(part)))


def _add_metadata(
    files: Sequence[Path], folder: Path, choices: Choices, findings: Findings
) -> None:
    """Adds the imagefolder format: metadata.csv or metadata.jsonl beside the pictures."""
    if len({path.parent for path in files}) < len(files):
        raise DataError(f"{folder} holds metadata.csv and metadata.jsonl. Keep one of them.")
    for path, split in zip(files, splits_of_files(files, folder), strict=True):
        name = path.relative_to(folder).as_posix()
        table = load_table(path, choices)
        add_table(table, name, Place(path.parent, folder), split, findings)
    if not any(record.split for record in findings.records):
        _take_splits_from_paths(folder, findings)


def _take_splits_from_paths(folder: Path, findings: Findings) -> None:
    """Gives each record the split that its path begins with, if all paths begin with one."""
    splits = [_split_of_path(record, folder) for record in findings.records]
    if all(splits) and "train" in splits:
        pairs = zip(findings.records, splits, strict=True)
        findings.records[:] = [replace(record, split=split) for record, split in pairs]
        findings.notes.append("The splits are the folders of the pictures.")


def _split_of_path(record: Record, folder: Path) -> Split | None:
    if not isinstance(record.image, FileImage):
        return None
    path = Path(record.image.path)
    base = folder.absolute()
    inside = path.relative_to(base).parts if path.is_relative_to(base) else ()
    return split_named(inside[0]) if len(inside) > 1 else None


def _add_tables_or_classes(
    found: Contents, folder: Path, choices: Choices, findings: Findings
) -> None:
    """Adds the tables that name pictures; if there is none, the class folders."""
    tables, reasons = _tables_of_pictures(found.tables, choices)
    if not tables:
        try:
            add_class_folders(folder, findings)
        except DataError as error:
            first = reasons[0] if reasons else error
            raise first from None
        if found.tables:
            findings.notes.append(f"Ignored {found.tables[0].name}, because: {reasons[0]}")
        return
    files = [table.path for table in tables]
    splits = splits_of_files(files, folder)
    if len(tables) > 1 and None in splits:
        names = ", ".join(path.name for path in files[:5])
        raise DataError(f"{folder} holds several tables of pictures: {names}. Name one of them.")
    for table, split in zip(tables, splits, strict=True):
        name = table.path.relative_to(folder).as_posix()
        add_table(table, name, Place(table.path.parent, folder), split, findings)
    used = {table.path for table in tables}
    ignored = [path.name for path in found.tables if path not in used]
    if ignored:
        findings.notes.append(f"Ignored {', '.join(ignored)}, because: {reasons[0]}")


def _tables_of_pictures(
    paths: Sequence[Path], choices: Choices
) -> tuple[list[LoadedTable], list[DataError]]:
    """Returns the tables that name pictures, and why the others cannot be used."""
    tables, reasons = [], []
    for path in paths:
        try:
            tables.append(load_table(path, choices))
        except DataError as error:
            reasons.append(error)
    return tables, reasons


def _missing(name: str) -> DataError:
    hint = f" For a dataset on the Hub, write {PREFIX}{name}." if name.count("/") == 1 else ""
    return DataError(f"{name} does not exist.{hint}")
