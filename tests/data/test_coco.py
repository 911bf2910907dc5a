import json
from pathlib import Path
from typing import Any

import pytest
from collection import ITEMS, write_pictures

from hfclip.data.examples import Dataset, Skipped, read_dataset
from hfclip.errors import DataError


def write(folder: Path, images: list[Any], annotations: list[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "captions.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def read(path: Path) -> Dataset:
    return read_dataset(path, validation=0, max_skipped=1)


def test_the_pictures_are_found_beside_the_folder_of_the_annotations(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train2017", ITEMS[:1])
    path = write(
        tmp_path / "annotations",
        [{"id": 1, "file_name": "00.png"}],
        [{"image_id": 1, "caption": "b "}, {"image_id": 1, "caption": "a"}],
    )
    (example,) = read(path).train
    assert (example.key, example.captions) == ("00.png", ("a", "b"))
    assert example.image.read() == ITEMS[0].content


def test_malformed_entries_are_skipped_with_their_place(tmp_path: Path) -> None:
    write_pictures(tmp_path, ITEMS[:2])
    images = [
        {"id": 1, "file_name": "00.png"},
        {"id": 2, "file_name": "01.png"},
        {"id": 3, "file_name": "../x.png"},
        {"id": [4], "file_name": "y.png"},
        "nonsense",
    ]
    annotations = [
        {"image_id": 1, "caption": "a"},
        {"image_id": 1, "caption": " "},
        {"image_id": 9, "caption": "b"},
        {"image_id": [1], "caption": "c"},
        7,
        {"image_id": 3, "caption": "d"},
    ]
    write(tmp_path, images, annotations)
    data = read(tmp_path)
    assert [example.captions for example in data.train] == [("a",)]
    stray = "the annotation belongs to no picture of the file"
    assert data.skipped == (
        Skipped("captions.json: annotation 2", "the caption is empty"),
        Skipped("captions.json: annotation 3", stray),
        Skipped("captions.json: annotation 4", stray),
        Skipped("captions.json: annotation 5", stray),
        Skipped("01.png", "the picture has no caption"),
        Skipped("../x.png", f"../x.png is outside the folder {tmp_path}"),
    )


def test_boxes_are_no_captions(tmp_path: Path) -> None:
    path = write(tmp_path, [{"id": 1, "file_name": "00.png"}], [{"image_id": 1, "bbox": [0, 0]}])
    with pytest.raises(DataError, match="holds no captions: its annotations are of another kind"):
        read(path)


def test_pictures_that_are_nowhere_are_named(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "00.png"}]
    path = write(tmp_path / "annotations", images, [{"image_id": 1, "caption": "a"}])
    with pytest.raises(DataError, match=r"names 00\.png, but it is neither in .*annotations"):
        read(path)
