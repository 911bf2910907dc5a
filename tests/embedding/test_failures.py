"""errors.csv: the live rows without an embedding."""

import csv
from pathlib import Path

import pytest
from embedded import listed, run, write

from hfclip.embedding.changes import update_plan
from hfclip.embedding.failures import Counts, write_errors
from hfclip.errors import DataError


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_table_lists_live_rows_with_present_keys_and_goes_when_there_are_none(
    tmp_path: Path,
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for number in range(6):
        write(folder / f"{number}.jpg", b"%d" % number)
    for name in ("1", "4"):
        write(folder / f"{name}.jpg", b"broken %s" % name.encode())
    write(folder / 'a, "b"\n.jpg', b"unread")
    run(folder, out)
    path = out / "errors.csv"
    assert write_errors(out) == Counts(7, 4, 3, 0, str(path))
    assert table(path) == [
        ["key", "error"],
        ["in/1.jpg", "broken"],
        ["in/4.jpg", "broken"],
        ['in/a, "b"\n.jpg', "unread"],
    ]
    (folder / "4.jpg").unlink()
    write(folder / "1.jpg", b"mended")
    update_plan(out, listed(folder), part_size=4)
    assert write_errors(out) == Counts(6, 4, 1, 1, str(path))
    assert table(path) == [["key", "error"], ['in/a, "b"\n.jpg', "unread"]]
    (folder / 'a, "b"\n.jpg').unlink()
    run(folder, out)
    assert write_errors(out) == Counts(5, 5, 0, 0, None)
    assert not path.exists()


def test_a_folder_without_a_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no plan"):
        write_errors(tmp_path)
