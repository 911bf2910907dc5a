"""Copies of results: names, sources, and what is never touched."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from collection import picture
from PIL import Image

from hfclip.data.references import FileImage, TarImage
from hfclip.embedding.items import Item
from hfclip.errors import DataError
from hfclip.search.copies import copy_originals


def item(key: str, path: Path) -> Item:
    return Item(key, FileImage(str(path)), None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(picture(1))
    return path


def test_names_have_the_rank_and_the_last_part_of_the_key(photo: Path, tmp_path: Path) -> None:
    keys = {
        "photos/cat.png": "01-cat.png",
        "photos/CAT.JPG": "02-CAT.JPG",
        "shard.tar/000012": "03-000012.png",
        "table.parquet:12": "04-table.parquet-12.png",
        "https://example.org/a/b.jpg?size=3&x=1": "05-b.jpg-size=3&x=1.png",
        "../../etc/passwd": "06-passwd.png",
        "C:\\photos\\..\\dog.png": "07-dog.png",
        "photos/..": "08-picture.png",
        "photos/a\nb\x00.png": "09-a-b-.png",
        "photos/" + "\N{CAT FACE}" * 100 + ".png": "10-" + "\N{CAT FACE}" * 37 + ".png",
    }
    folder = tmp_path / "found"
    assert copy_originals([item(key, photo) for key in keys], folder) == []
    assert names(folder) == sorted(keys.values())
    for path in folder.iterdir():
        assert path.read_bytes() == picture(1)


def test_a_picture_in_a_tar_is_extracted(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in (("a.txt", b"a cat"), ("a.png", picture(7))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as tar:
        member = tar.getmember("a.png")
    stored = Item("shard.tar/a", TarImage(str(path), member.offset_data, member.size), "a cat")
    assert copy_originals([stored], tmp_path / "found") == []
    assert (tmp_path / "found/01-a.png").read_bytes() == picture(7)


def test_nothing_is_replaced(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    copy_originals([item("a.png", photo)], folder)
    photo.write_bytes(picture(2))
    with pytest.raises(DataError, match=r"already has 01-a\.png, and nothing is replaced"):
        copy_originals([item("b.png", photo), item("c.png", photo)], folder)
    assert names(folder) == ["01-a.png"]
    assert (folder / "01-a.png").read_bytes() == picture(1)


def test_a_name_that_is_taken_meanwhile_is_left_alone(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "found"
    link = os.link

    def taken_first(source: Path, target: Path) -> None:
        target.write_bytes(b"another program")
        link(source, target)

    monkeypatch.setattr(os, "link", taken_first)
    ((key, reason),) = copy_originals([item("a.png", photo)], folder)
    assert key == "a.png"
    assert "exists" in reason
    assert names(folder) == ["01-a.png"]
    assert (folder / "01-a.png").read_bytes() == b"another program"


def test_file_systems_without_links_get_copies_too(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    assert copy_originals([item("a.png", photo)], tmp_path / "found") == []
    assert names(tmp_path / "found") == ["01-a.png"]


def test_what_cannot_be_copied_is_reported_and_the_rest_is_copied(
    photo: Path, tmp_path: Path
) -> None:
    items = [
        item("gone.png", tmp_path / "gone.png"),
        item("a.png", photo),
        Item("b.png", None, None, error="it is no longer in the collection"),
        Item("texts.txt:3", None, "a cat"),
    ]
    failed = dict(copy_originals(items, tmp_path / "found"))
    assert failed.keys() == {"gone.png", "b.png", "texts.txt:3"}
    assert "No such file" in failed["gone.png"]
    assert failed["b.png"] == "it is no longer in the collection"
    assert failed["texts.txt:3"] == "it is a text, not a picture"
    assert names(tmp_path / "found") == ["02-a.png"]


def test_a_file_in_place_of_the_folder_is_refused(photo: Path) -> None:
    with pytest.raises(DataError, match="cannot be used as a folder"):
        copy_originals([item("a.png", photo)], photo)


@pytest.mark.parametrize(("kind", "ending"), [("JPEG", ".jpg"), ("TIFF", ".tif"), ("GIF", ".gif")])
def test_a_key_without_an_ending_gets_that_of_the_content(
    kind: str, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / "content"
    Image.new("RGB", (4, 4)).save(path, kind)
    copy_originals([item("table.csv:1", path)], tmp_path / "found")
    assert names(tmp_path / "found") == [f"01-table.csv-1{ending}"]
