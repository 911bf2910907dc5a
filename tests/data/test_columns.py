import pytest

from hfclip.data.columns import Columns, find_columns
from hfclip.data.records import Choices
from hfclip.errors import DataError


def find(row: dict[str, object], **chosen: str) -> Columns:
    return find_columns(list(row), [row], Choices(**chosen), "table.csv")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"file_name": "a.jpg", "text": "x"}, Columns("file_name", "text", None, None)),
        ({"Image Path": "a", "Caption": "x"}, Columns("Image Path", "Caption", None, None)),
        ({"where": "a.webp", "class": "x"}, Columns("where", None, "class", None)),
        ({"image": "x/a.JPG", "path": "x"}, None),
        (
            {"id": "1", "image": "a.png", "alt-text": "x", "label": "y", "split": "train"},
            Columns("image", "alt-text", "label", "split"),
        ),
    ],
)
def test_columns_are_found_by_content_and_name(
    row: dict[str, object], expected: Columns | None
) -> None:
    if expected is None:
        with pytest.raises(DataError, match="no column is named like captions or labels"):
            find(row)
    else:
        assert find(row) == expected


def test_two_possible_columns_are_refused_with_the_option_that_decides() -> None:
    row: dict[str, object] = {"file": "a.jpg", "title": "x", "description": "y"}
    with pytest.raises(DataError, match=r"2 columns could hold the captions: 'title', 'descr"):
        find(row)
    assert find(row, caption="title") == Columns("file", "title", None, None)
    with pytest.raises(DataError, match=r"labels: .*label_column \(--label-column\)"):
        find({"file": "a.jpg", "fine_label": "x", "coarse_label": "y"})
    with pytest.raises(DataError, match=r"pictures: 'image', 'path'\. .*--image-column"):
        find({"image": "a.jpg", "path": "b.jpg", "label": "x"})


def test_a_choice_of_captions_alone_leaves_the_labels_out() -> None:
    row: dict[str, object] = {"file": "a.jpg", "text": "x", "label": "y", "note": "z"}
    assert find(row) == Columns("file", "text", "label", None)
    assert find(row, caption="note") == Columns("file", "note", None, None)
    assert find(row, label="label") == Columns("file", None, "label", None)
    assert find(row, caption="text", label="note") == Columns("file", "text", "note", None)


def test_a_chosen_column_must_exist_and_have_one_role() -> None:
    row: dict[str, object] = {"file": "a.jpg", "text": "x"}
    with pytest.raises(DataError, match=r"no column 'txt' \(caption_column\); it has 'file', 'te"):
        find(row, caption="txt")
    with pytest.raises(DataError, match="cannot have two roles"):
        find(row, caption="file")


def test_a_table_without_pictures_is_refused() -> None:
    with pytest.raises(DataError, match="no column holds file names of pictures"):
        find({"epoch": "1", "label": "x"})


def test_most_values_decide_which_column_holds_the_pictures() -> None:
    rows = [{"a": "x.jpg", "b": "see y.jpg", "label": "1"}, {"a": "z.jpg", "b": "w", "label": "2"}]
    assert find_columns(["a", "b", "label"], rows, Choices(), "t").image == "a"
