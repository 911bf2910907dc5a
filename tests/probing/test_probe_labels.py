"""The labels of a collection: folders, captions and CSV files."""

from pathlib import Path

import pytest
from small_collection import Row, unit_rows, write_collection

import hfclip
from hfclip.embedding.items import Item
from hfclip.errors import ArgumentError, LabelError
from hfclip.probing.labels import labels_from, labels_in


def collection(
    out: Path, keys: list[str], captions: list[str | None] | None = None
) -> hfclip.Embeddings:
    given = captions or [None] * len(keys)
    rows = [
        row._replace(item=Item(key, None, caption, place, 0))
        for place, (row, key, caption) in enumerate(
            zip(unit_rows(len(keys)), keys, given, strict=True)
        )
    ]
    return hfclip.Embeddings(write_collection(out, rows))


@pytest.mark.parametrize(
    ("keys", "labels", "splits"),
    [
        (["p/cat/1.jpg", "p/dog/2.jpg"], ["cat", "dog"], [None, None]),
        (
            ["p/train/cat/1.jpg", "p/val/cat/2.jpg", "p/test/dog/3.jpg"],
            ["cat", "cat", "dog"],
            ["train", "validation", "test"],
        ),
        (["p/Train/a/cat/1.jpg", "p/TEST/b/dog/3.jpg"], ["cat", "dog"], ["train", "test"]),
        # The last folder is the label, and folders that all share are no splits.
        (["test/p/cat/1.jpg", "test/p/dog/3.jpg"], ["cat", "dog"], [None, None]),
        (["p/train/1.jpg", "p/test/3.jpg"], ["train", "test"], [None, None]),
        (["https://host/p/cat/1.jpg", "s3://b/dog/3.jpg"], ["cat", "dog"], [None, None]),
        (["p/a.tar/cat/1", "p/a.tar/dog/2"], ["cat", "dog"], [None, None]),
    ],
)
def test_a_folder_names_the_label_and_a_folder_above_the_split(
    keys: list[str], labels: list[str], splits: list[str | None], tmp_path: Path
) -> None:
    found = labels_from(collection(tmp_path / "out", keys), "folder")
    assert (found.names, found.splits, found.source) == (labels, splits, "folder")


@pytest.mark.parametrize("key", ["1.jpg", "table.parquet:3", "p/a.tar/1"])
def test_a_picture_in_no_folder_is_refused_by_its_key(key: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=f"'{key}' is in no folder that names its label"):
        labels_from(collection(tmp_path / "out", ["p/cat/1.jpg", key]), "folder")


def test_captions_are_labels_and_rows_without_have_none(tmp_path: Path) -> None:
    embeddings = collection(
        tmp_path / "out",
        ["p/train/1.jpg", "p/test/2.jpg", "p/test/3.jpg", "p/test/4.jpg"],
        [" a cat ", "dog", None, "  "],
    )
    found = labels_from(embeddings, "caption")
    assert found.names == ["a cat", "dog", None, None]
    assert found.splits == ["train", "test", "test", "test"]


def test_a_column_is_no_source_and_the_error_says_what_is(tmp_path: Path) -> None:
    embeddings = collection(tmp_path / "out", ["p/cat/1.jpg"])
    with pytest.raises(ArgumentError, match=r"'species'.*--caption-column species.*--labels-file"):
        labels_from(embeddings, "species")
    with pytest.raises(LabelError, match=r"No picture of .* has a caption"):
        labels_from(embeddings, "caption")


@pytest.fixture
def embeddings(tmp_path: Path) -> hfclip.Embeddings:
    rows = unit_rows(3)
    broken = Row(Item("photos/broken.jpg", None, None, 1, 0), None, error="truncated")
    return hfclip.Embeddings(write_collection(tmp_path / "out", [*rows, broken]))


def test_a_file_names_labels_and_splits_in_any_order(
    embeddings: hfclip.Embeddings, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "\ufeffsplit,key,note,label\r\n"
        'test,photos/0002.jpg,x,"cat, black"\r\n'
        "train,photos/0000.jpg,x, dog \r\n"
        ",photos/none.jpg,x,dog\r\n"
        ",photos/broken.jpg,x,dog\r\n",
        encoding="utf-8",
    )
    found = labels_in(path, embeddings)
    assert found.names == ["dog", None, "cat, black"]
    assert found.splits == ["train", None, "test"]
    assert (found.source, found.unknown) == ("labels.csv", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\na,b\n", "It lacks key"),
        ("", "has the columns none"),
        ("key,label\nphotos/0000.jpg,a\nphotos/0000.jpg,b\n", "line 3 repeats the key of line 2"),
        ("key,label,split\nphotos/0000.jpg,a,holdout\n", "line 2 has the split 'holdout'"),
        ("key,label\n0000.jpg,a\n", r"Its first key is '0000.jpg'; .* such as 'photos/0000.jpg'"),
        (b"key,label\nphotos/0000.jpg,caf\xe9\n", "cannot be read as UTF-8"),
    ],
)
def test_a_malformed_file_is_refused_and_the_place_named(
    content: str | bytes, message: str, embeddings: hfclip.Embeddings, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LabelError, match=message):
        labels_in(path, embeddings)
