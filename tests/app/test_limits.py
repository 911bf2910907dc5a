"""What a page accepts, and how it refuses the rest."""

from pathlib import Path

import pytest
from PIL import Image

from hfclip.app.limits import (
    Limits,
    check_count,
    check_picture,
    read_captions,
    read_labels,
    read_query,
    read_templates,
)
from hfclip.errors import ImageError, LabelError

SMALL = Limits(pixels=10_000, pictures=2, lines=3, captions=4, characters=10)


def same(size: tuple[int, int]) -> tuple[int, int]:
    return size


def shortest_8(size: tuple[int, int]) -> tuple[int, int]:
    """Resizes the shorter side to 8 pixels."""
    return 8 * size[0] // min(size), 8 * size[1] // min(size)


def test_labels_are_the_lines_that_are_not_blank_without_their_space() -> None:
    assert read_labels(" a cat \n\n\ta dog\r\n", SMALL) == ("a cat", "a dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "There is no label. Write one label a line."),
        (" \n\n", "There is no label"),
        ("a\na", "Labels occur more than once: a"),
        ("a\nb\nc\nd", "4 labels are too many; this page takes 3."),
        ("x" * 11, r"A label has 11 characters \(x{11}...\); this page takes 10"),
        ("x" * 1_000_000, "The labels have 1,000,000 characters; this page takes 3 lines of 10."),
    ],
)
def test_labels_beyond_the_limits_are_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(text, SMALL)


def test_templates_need_a_place_for_the_label() -> None:
    assert read_templates("a {}\nthe {}", 2, SMALL) == ("a {}", "the {}")
    with pytest.raises(LabelError, match=r"template 1, counted from 0, has no {}"):
        read_templates("a {}\nthe", 2, SMALL)


def test_labels_times_templates_are_limited() -> None:
    with pytest.raises(LabelError, match=r"3 labels with 2 templates are 6 captions.* at most 4"):
        read_templates("a {}\nthe {}", 3, SMALL)


def test_captions_may_repeat_and_a_query_may_be_blank() -> None:
    assert read_captions("a\na", SMALL) == ("a", "a")
    assert read_query("  ", SMALL) is None
    assert read_query(" a cat ", SMALL) == "a cat"
    with pytest.raises(LabelError, match=r"A query has 11 characters"):
        read_query("x" * 11, SMALL)


def test_the_number_of_pictures_is_limited() -> None:
    check_count(2, SMALL)
    with pytest.raises(ImageError, match=r"There is no picture"):
        check_count(0, SMALL)
    with pytest.raises(ImageError, match=r"3 pictures are too many at once; this page takes 2"):
        check_count(3, SMALL)


def test_the_size_of_a_picture_is_checked_before_it_is_decoded(tmp_path: Path) -> None:
    for name, size in {
        "good.png": (100, 100),
        "large.png": (101, 100),
        "thin.png": (200, 1),
    }.items():
        Image.new("L", size).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")

    def check(name: str) -> None:
        check_picture(str(tmp_path / name), name, SMALL, shortest_8 if "thin" in name else same)

    check("good.png")
    with pytest.raises(ImageError, match=r"large.png: 101 x 100 pixels are too many; this page"):
        check("large.png")
    with pytest.raises(ImageError, match=r"thin.png: 200 x 1 pixels .* they are 1,600 x 8"):
        check("thin.png")
    with pytest.raises(ImageError, match=r"broken.png: not a picture that Pillow can read"):
        check("broken.png")
