import csv
import io
import os
import pickle
import warnings
from pathlib import Path

import pytest
from collection import ITEMS, picture, write_pictures, write_table
from PIL import Image

from hfclip.data.examples import Skipped, read_dataset
from hfclip.data.references import FileImage
from hfclip.data.skipped import write_skipped
from hfclip.errors import ArgumentError, DataError


def write_captions(folder: Path, captions: dict[str, str]) -> Path:
    return write_table(folder / "table.csv", ("file", "caption"), captions.items())


def damaged(folder: Path) -> dict[str, str]:
    """Writes unreadable pictures and returns the reason for each."""
    jpeg = io.BytesIO()
    Image.effect_noise((400, 300), 80).save(jpeg, "JPEG")
    png = picture(1)
    files = {
        "empty.jpg": (b"", "not a picture that Pillow can read."),
        "text.jpg": (b"hello", "not a picture that Pillow can read."),
        "cut.jpg": (jpeg.getvalue()[:-2000], "cannot be decoded (image file is truncated"),
        "cut.png": (png[:-30], "cannot be decoded ("),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    reasons = {name: reason for name, (_, reason) in files.items()}
    return reasons | {
        "folder.jpg": "cannot be read (Is a directory)",
        "missing.jpg": "no such file",
    }


def test_unreadable_pictures_are_skipped_with_their_reason(tmp_path: Path) -> None:
    write_pictures(tmp_path, ITEMS)
    reasons = damaged(tmp_path)
    names = [*reasons, *(item.name for item in ITEMS)]
    data = read_dataset(write_captions(tmp_path, dict.fromkeys(names, "x")), max_skipped=0.1)
    assert len(data.train) + len(data.validation) == 60
    for (name, reason), skipped in zip(reasons.items(), data.skipped, strict=True):
        line = names.index(name) + 2
        assert skipped.key == f"table.csv:{line}"
        assert skipped.reason.startswith(reason), name
    assert "Skipped 6 pictures or rows." in data.notes


def test_more_than_five_percent_skipped_stops_with_the_first_three(tmp_path: Path) -> None:
    write_pictures(tmp_path, ITEMS)
    names = [item.name for item in ITEMS]
    path = write_captions(tmp_path, dict.fromkeys(["a.jpg", "b.jpg", "c.jpg", *names], "x"))
    assert len(read_dataset(path).skipped) == 3
    path = write_captions(tmp_path, dict.fromkeys([*"abcd", *names], "x"))
    with pytest.raises(DataError) as error:
        read_dataset(path)
    assert str(error.value) == (
        f"{path}: 4 of 64 pictures or rows cannot be used: table.csv:2: no such file; "
        "table.csv:3: no such file; table.csv:4: no such file; and 1 more. At most 5% may be "
        "skipped. Correct them, or raise max_skipped (--max-skipped)."
    )
    assert len(read_dataset(path, max_skipped=0.07).skipped) == 4


def test_data_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    path = write_captions(tmp_path, {"a.jpg": "x"})
    with pytest.raises(DataError, match=r"1 of 1 pictures or rows cannot be used.*Nothing is lef"):
        read_dataset(path, max_skipped=1)


def test_identical_pictures_in_train_and_validation_are_reported(tmp_path: Path) -> None:
    for split, part in (("train", ITEMS[:10]), ("val", ITEMS[8:14]), ("test", ITEMS[:1])):
        for item in part:
            write_pictures(tmp_path / split / item.label, [item])
    data = read_dataset(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 6, 1)
    shared = {f"{kind}/{i.label}/{i.name}" for i in ITEMS[8:10] for kind in ("train", "val")}
    (note,) = [note for note in data.notes if "are in train and in validation" in note]
    assert note.startswith("2 identical pictures are in train and in validation, such as train/")
    assert sum(key in note for key in shared) == 2
    (note,) = [note for note in data.notes if "are in train and in test" in note]
    assert note.startswith("1 identical pictures are in train and in test, such as")


def test_copies_of_a_picture_count_once_and_never_fall_on_both_sides(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    for number in range(40):
        for copy in ("a", "b"):
            path = tmp_path / ("cat", "dog")[number % 2] / f"{number}{copy}.png"
            path.write_bytes(picture(number))
    (tmp_path / "dog/odd.png").write_bytes(picture(0))
    data = read_dataset(tmp_path, validation=0.3)
    assert len(data.train) + len(data.validation) == 41
    assert not {e.digest for e in data.train} & {e.digest for e in data.validation}
    assert (
        "40 pictures occur more than once and count once, such as cat/0a.png and cat/0b.png."
        in (data.notes)
    )
    different = "1 identical pictures have different labels, such as cat/0a.png and dog/odd.png."
    assert any(note.startswith(different) for note in data.notes)


def test_captions_that_will_be_truncated_are_counted_and_listed(tmp_path: Path) -> None:
    write_pictures(tmp_path, ITEMS[:3])
    captions = {"00.png": "cat " * 75, "01.png": "cat " * 76, "02.png": "cat " * 80}
    data = read_dataset(write_captions(tmp_path, captions), validation=0)
    assert len(data.train) == 3
    assert data.skipped == ()
    assert set(data.truncated) == {
        Skipped("table.csv:3", "truncated: 76 tokens in a caption, of which 75 are used"),
        Skipped("table.csv:4", "truncated: 80 tokens in a caption, of which 75 are used"),
    }
    assert (
        "2 of 3 distinct captions have more than 75 tokens (at most 80); the rest of each is not "
        "used." in data.notes
    )
    data = read_dataset(write_captions(tmp_path, captions), context_length=90)
    assert not [note for note in data.notes if "tokens" in note]
    assert data.truncated == ()


def test_labels_that_training_never_shows_are_noted(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train/cat", ITEMS[:2])
    write_pictures(tmp_path / "val/dog", ITEMS[2:4])
    assert "1 labels of validation are not in train: dog." in read_dataset(tmp_path).notes


def test_the_notes_say_what_was_found(tmp_path: Path) -> None:
    write_pictures(tmp_path, ITEMS)
    rows = [(item.name, item.label) for item in ITEMS]
    path = write_table(tmp_path / "table.csv", ("file", "label"), rows, ";")
    data = read_dataset(path, seed=5)
    count = len(data.validation)
    assert data.notes == (
        "table.csv: delimiter semicolon; columns: picture 'file', label 'label'.",
        f"train: {60 - count} pictures, 3 classes.",
        f"validation, divided off train by picture and seed 5: {count} pictures, 3 classes.",
    )


def test_text_that_is_not_unicode_is_skipped(tmp_path: Path) -> None:
    write_pictures(tmp_path, ITEMS[:2])
    path = tmp_path / "table.jsonl"
    path.write_text(
        '{"file": "00.png", "text": "\\ud83d"}\n{"file": "01.png", "text": "\\ud83d\\ude00"}\n'
    )
    data = read_dataset(path, validation=0, max_skipped=0.5)
    assert [example.captions for example in data.train] == [("\U0001f600",)]
    assert data.skipped[0].reason == "the text '\\ud83d' has characters that are not Unicode"


def test_examples_are_small_and_picklable(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cat", ITEMS[:3])
    data = read_dataset(tmp_path, validation=0)
    content = pickle.dumps(data.train[0])
    assert len(content) < 600
    assert pickle.loads(content) == data.train[0]
    path = str(tmp_path / "cat" / Path(data.train[0].key).name)
    assert data.train[0].image == FileImage(path)


def test_a_picture_that_is_too_large_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "cat", ITEMS[:3])
    Image.new("L", (300, 300)).save(tmp_path / "cat/large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = read_dataset(tmp_path, max_skipped=0.5)
    assert data.skipped[0].key == "cat/large.png"
    assert data.skipped[0].reason.startswith("too large to decode")


@pytest.mark.parametrize("options", [{"validation": 1.0}, {"validation": -0.1}, {"max_skipped": 2}])
def test_numbers_outside_their_range_are_refused(tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match="expected"):
        read_dataset(tmp_path, **options)  # type: ignore[arg-type]


def test_a_split_for_some_pictures_only_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, ITEMS[:2])
    for name, header, row in (
        ("train.csv", ("file", "label"), ("00.png", "x")),
        ("other.csv", ("file", "label"), ("01.png", "x")),
    ):
        write_table(tmp_path / name, header, [row])
    with pytest.raises(DataError, match=r"other\.csv belongs to no split, but other files do"):
        read_dataset(tmp_path)


SKIPPED = (Skipped("a, b.jpg", 'not "a" picture'), Skipped("caf\udce9.jpg", "two\nlines"))


def test_the_skipped_pictures_are_written_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "out/skipped.csv"
    write_skipped(path, SKIPPED)
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["key", "reason"],
            ["a, b.jpg", 'not "a" picture'],
            ["caf\\udce9.jpg", "two\nlines"],
        ]
    assert [file.name for file in path.parent.iterdir()] == ["skipped.csv"]


def test_an_interrupted_write_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "skipped.csv"
    path.write_text("earlier")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_skipped(path, SKIPPED)
    assert path.read_text() == "earlier"
    assert [file.name for file in tmp_path.iterdir()] == ["skipped.csv"]
