from pathlib import Path
from typing import Any

import pytest

from hfclip.data.columns import Columns
from hfclip.data.records import Findings, Skipped, UnusableRowError
from hfclip.data.references import FileImage
from hfclip.data.rows import Place, Table, captions_of, label_of, text_of
from hfclip.errors import DataError


@pytest.mark.parametrize(
    "path",
    [
        "../secret.jpg",
        "/etc/secret.jpg",
        "a/../../secret.jpg",
        "..\\secret.jpg",
        "a\\..\\..\\b.jpg",
    ],
)
def test_a_path_never_leaves_the_boundary(tmp_path: Path, path: str) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    with pytest.raises(UnusableRowError, match="is outside the folder"):
        Place(inside, inside).find(path)


def test_a_table_of_ones_own_may_name_pictures_anywhere(tmp_path: Path) -> None:
    place = Place(tmp_path / "data", None)
    assert place.find("../a.jpg") == FileImage(str(tmp_path / "a.jpg"))
    assert place.find("/srv/a.jpg") == FileImage("/srv/a.jpg")


def test_a_sub_folder_may_name_pictures_of_the_whole_source(tmp_path: Path) -> None:
    place = Place(tmp_path / "train", tmp_path)
    assert place.find("../all/a.jpg") == FileImage(str(tmp_path / "all/a.jpg"))
    with pytest.raises(UnusableRowError, match="outside"):
        place.find("../../a.jpg")


def test_backslashes_separate_folders_unless_a_file_has_that_name(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path)
    assert place.find("a\\b.jpg") == FileImage(str(tmp_path / "a/b.jpg"))
    (tmp_path / "a\\b.jpg").touch()
    assert place.find("a\\b.jpg") == FileImage(str(tmp_path / "a\\b.jpg"))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty or malformed"),
        (" ", "empty or malformed"),
        ("a\0.jpg", "empty or malformed"),
        ("https://example.org/a.jpg", "is a URL; download the pictures first"),
    ],
)
def test_a_path_that_is_none_is_unusable(tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(UnusableRowError, match=reason):
        Place(tmp_path, None).find(path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("None", "None"), ("", ""), (7, "7"), (7.0, "7"), (0.5, "0.5"), (10**20, str(10**20))],
)
def test_text_and_numbers_become_text(value: Any, expected: str) -> None:
    assert text_of(value, "label") == expected


@pytest.mark.parametrize("value", [True, None, float("nan"), float("inf"), {"a": 1}, b"x"])
def test_other_values_are_unusable(value: Any) -> None:
    with pytest.raises(UnusableRowError, match=r"the label is .*; expected text"):
        text_of(value, "label")


def test_captions_are_stripped_and_empty_ones_dropped() -> None:
    assert captions_of(" a cat\n") == ("a cat",)
    assert captions_of(["a", " ", None, "b"]) == ("a", "b")
    for empty in ("", " \n", None, [], ["", None]):
        with pytest.raises(UnusableRowError, match="the caption is empty"):
            captions_of(empty)
    with pytest.raises(UnusableRowError, match="the caption is a dict of 1 values"):
        captions_of([{"raw": "x"}])


def test_a_label_is_a_name_or_an_index_of_the_class_names() -> None:
    assert label_of(" 7 ") == "7"
    assert label_of(1, ["cat", "dog"]) == "dog"
    assert label_of("1\n", ["cat", "dog"]) == "dog"
    assert label_of("cat", ["cat", "dog"]) == "cat"
    for wrong in (2, -1, "bird"):
        with pytest.raises(UnusableRowError, match=f"the label is {wrong}; expected 0 to 1"):
            label_of(wrong, ["cat", "dog"])
    with pytest.raises(UnusableRowError, match="the label is missing"):
        label_of(None)
    with pytest.raises(UnusableRowError, match="the label is a list of 2 values"):
        label_of(["cat", "dog"])


def test_unusable_rows_are_skipped_with_their_reason(tmp_path: Path) -> None:
    table = Table(Columns("f", "c", None, None), Place(tmp_path, tmp_path))
    findings = Findings()
    rows: list[dict[str, Any]] = [
        {"f": "a.jpg", "c": "x"},
        {"f": None, "c": "x"},
        {"f": "b.jpg", "c": ""},
    ]
    table.add(((f"t:{n}", row) for n, row in enumerate(rows, 2)), findings)
    assert [(record.key, record.captions) for record in findings.records] == [("t:2", ("x",))]
    assert findings.skipped == [
        Skipped("t:3", "the picture is missing"),
        Skipped("t:4", "the caption is empty"),
    ]


def test_an_unknown_split_is_an_error(tmp_path: Path) -> None:
    table = Table(Columns("f", None, "c", "split"), Place(tmp_path, None))
    assert table.record("t:2", {"f": "a", "c": "x", "split": "Dev"}).split == "validation"
    with pytest.raises(DataError, match="t:3 has the split 'fold1'; expected train"):
        table.record("t:3", {"f": "a", "c": "x", "split": "fold1"})
