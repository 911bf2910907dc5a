import os
import sys
from itertools import islice
from pathlib import Path

import pytest
from places import Place, listed, seen, tar

from hfclip.data.references import FileImage, RemoteImage, TarImage
from hfclip.embedding.listing import list_items
from hfclip.embedding.settings import Listing
from hfclip.errors import DataError

TEXTS = Listing("texts")


def test_a_folder_gives_its_pictures_sorted_by_path(place: Place) -> None:
    for name in ("b.jpg", "a.PNG", "a/z.webp", "a-b/y.gif", "a/1/x.tif"):
        place.write(f"photos/{name}", name)
    for name in (".hidden.jpg", "._a.jpg", ".trash/c.jpg", "a/.d.png", "notes.txt", "a/movie.mp4"):
        place.write(f"photos/{name}", "left out")
    folder = place.name("photos")
    expected = ["a-b/y.gif", "a.PNG", "a/1/x.tif", "a/z.webp", "b.jpg"]
    assert seen(folder) == [(f"{folder}/{name}", name.encode(), None) for name in expected]
    assert seen(f"{folder}/") == seen(folder)
    assert sorted(expected) == expected


def test_items_of_files_have_the_size_and_the_time(place: Place) -> None:
    name = place.write("photos/a.jpg", b"12345")
    (first,) = listed(place.name("photos"))
    assert (first.key, first.size) == (name, 5)
    assert isinstance(first.mtime_ns, int)
    assert first.mtime_ns > 1_600_000_000_000_000_000
    place.write("photos/a.jpg", b"1234567")
    (second,) = listed(place.name("photos"))
    assert second.size == 7
    assert second.mtime_ns is not None
    assert second.mtime_ns >= first.mtime_ns


def test_a_reference_is_absolute_and_a_key_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place("local", tmp_path)
    place.write("x/photos/a.jpg", b"1")
    monkeypatch.chdir(tmp_path / "x")
    at = FileImage(str(tmp_path / "x/photos/a.jpg"))
    for source, key in (
        ("photos", "photos/a.jpg"),
        ("./photos/../photos//", "photos/a.jpg"),
        (".", "photos/a.jpg"),
        ("../x/photos", "../x/photos/a.jpg"),
        (f"{tmp_path}/x", f"{tmp_path}/x/photos/a.jpg"),
        (f"file://{tmp_path}/x/photos", f"{tmp_path}/x/photos/a.jpg"),
        ("photos/a.jpg", "photos/a.jpg"),
    ):
        assert [(item.key, item.image) for item in listed(source)] == [(key, at)], source


def test_a_folder_without_pictures_is_refused_and_names_what_is_there(place: Place) -> None:
    place.write("docs/readme.md", "text")
    with pytest.raises(DataError, match=r"docs holds no picture\.$"):
        listed(place.name("docs"))
    place.write("docs/a/part-1.parquet", "")
    with pytest.raises(
        DataError, match=r"part-1\.parquet\. Give these files as '.*docs/\*\*/\*\.p"
    ):
        listed(place.name("docs"))


def test_raw_files_are_items_with_an_error(place: Place) -> None:
    place.write("photos/1.CR2", b"raw")
    place.write("photos/2.jpg", b"good")
    folder = place.name("photos")
    reason = "a camera's RAW file, which is not read. Export it as JPEG."
    assert seen(folder) == [
        (f"{folder}/1.CR2", reason, None),
        (f"{folder}/2.jpg", b"good", None),
    ]
    assert seen(f"{folder}/1.CR2") == [(f"{folder}/1.CR2", reason, None)]


def test_heic_without_its_decoder_is_an_item_with_the_command(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    heic = place.write("photos/a.heic", b"\0\0\0\x18ftypheic\0\0")
    folder = place.name("photos")
    assert seen(folder) == [(heic, b"\0\0\0\x18ftypheic\0\0", None)]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert seen(folder) == [(heic, "HEIC needs a decoder: pip install 'hfclip[heic]'", None)]


def test_a_jpeg_with_the_ending_of_heic_needs_no_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\xff\xd8\xff\xe0 JPEG content")
    assert listed(str(tmp_path))[0].error is None


def test_links_to_files_are_followed_and_broken_links_are_errors(tmp_path: Path) -> None:
    (tmp_path / "photos/inner").mkdir(parents=True)
    (tmp_path / "real.bin").write_bytes(b"1")
    (tmp_path / "photos/a.jpg").symlink_to(tmp_path / "real.bin")
    (tmp_path / "photos/b.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "photos/inner/loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/c.jpg").mkdir()
    folder = str(tmp_path / "photos")
    assert seen(folder) == [
        (f"{folder}/a.jpg", b"1", None),
        (f"{folder}/b.jpg", "no such file", None),
    ]


def test_a_file_name_that_is_not_utf8_has_a_readable_key(tmp_path: Path) -> None:
    path = bytes(tmp_path) + b"/caf\xe9.jpg"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"1")
    (item,) = listed(str(tmp_path))
    assert item.key == f"{tmp_path}/caf\\xe9.jpg"
    assert item.content() == b"1"


def test_patterns_give_matching_files_in_order(place: Place) -> None:
    for name in ("a.jpg", "b.png", "d/c.jpg", "d/e/f.jpg", ".h.jpg", "d/.i.jpg", "d/x.txt"):
        place.write(f"p/{name}", name)
    at = place.name("p")

    def names(pattern: str) -> list[str]:
        return [key.removeprefix(f"{at}/") for key, _, _ in seen(f"{at}/{pattern}")]

    assert names("*.jpg") == ["a.jpg"]
    assert names("**/*.jpg") == ["a.jpg", "d/c.jpg", "d/e/f.jpg"]
    assert names("d/*") == ["d/c.jpg", "d/e/f.jpg"]
    assert names("{b.png,a.jpg,d}") == ["b.png", "a.jpg", "d/c.jpg", "d/e/f.jpg"]
    assert names("?.{png,jpg}") == ["b.png", "a.jpg"]
    with pytest.raises(DataError, match=r"No file matches .*p/\*\.webp\."):
        names("*.webp")
    place.write("p/1.jpg", b"1")
    with pytest.raises(
        DataError, match=r"p/2\.jpg does not exist; .*p/\{1\.\.2\}\.jpg stands for it"
    ):
        names("{1..2}.jpg")


def test_sources_keep_their_order_and_every_kind_can_be_mixed(place: Place) -> None:
    place.write("p/b.jpg", b"b")
    place.write("t/s.tar", tar([("x.jpg", b"x"), ("x.txt", b"cap")]))
    place.write("t/l.txt", "y.jpg\n")
    place.write("t/y.jpg", b"y")
    names = [place.name(name) for name in ("t/s.tar", "p", "t/l.txt")]
    expected = [
        (f"{names[0]}/x", b"x", "cap"),
        (f"{names[1]}/b.jpg", b"b", None),
        (place.name("t/y.jpg"), b"y", None),
    ]
    assert seen(*names) == expected
    assert seen(*names[::-1]) == expected[::-1]
    assert seen(*names) == seen(*names)


def test_a_pattern_without_an_ending_takes_pictures_only(place: Place) -> None:
    for name in ("a.jpg", "a.txt", "b.cr2", "c.csv", "d.json", "e.tar"):
        place.write(f"p/{name}", b"a.jpg")
    at = place.name("p")
    assert [key for key, _, _ in seen(f"{at}/*")] == [f"{at}/a.jpg", f"{at}/b.cr2"]
    assert [key for key, _, _ in seen(f"{at}/a*.txt")] == [f"{at}/a.jpg"]


def test_a_source_that_does_not_exist_is_named(place: Place) -> None:
    place.write("a.jpg")
    for name in ("b.jpg", "none/"):
        with pytest.raises(DataError, match=rf"{name.rstrip('/')} does not exist\.$"):
            listed(place.name("a.jpg"), place.name(name))
    with pytest.raises(DataError, match="Name at least one source"):
        listed()


def test_a_folder_that_cannot_be_listed_is_an_item_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "c/3.jpg"):
        Place("local", tmp_path).write(name, b"x")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert seen(str(tmp_path)) == [
        (f"{tmp_path}/a/1.jpg", b"x", None),
        (f"{tmp_path}/b", "the folder cannot be listed (Permission denied)", None),
        (f"{tmp_path}/c/3.jpg", b"x", None),
    ]
    with pytest.raises(DataError, match=r"/b cannot be listed \(Permission denied\)"):
        listed(f"{tmp_path}/b")


def test_a_listing_opens_no_picture_and_yields_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        place.write(f"p/{number:03}.jpg", b"x")
    for kind in (FileImage, RemoteImage, TarImage):
        monkeypatch.setattr(kind, "read", None)
    monkeypatch.setattr("builtins.open", None)
    items = list_items([place.name("p"), place.name("none.jpg")], Listing())
    assert next(items).key == place.name("p/000.jpg")
    assert len(list(islice(items, 299))) == 299
    with pytest.raises(DataError, match="does not exist"):
        next(items)
