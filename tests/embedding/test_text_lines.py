from pathlib import Path

import pytest
from places import Place, listed, seen

from hfclip.data.references import FileImage, RemoteImage
from hfclip.embedding.settings import Listing
from hfclip.errors import DataError

TEXTS = Listing("texts")


def test_a_list_names_pictures_relative_to_its_folder(place: Place) -> None:
    place.write("lists/photos/b.jpg", b"b")
    place.write("lists/a.jpg", b"a")
    source = place.write("lists/all.txt", "\ufeffphotos/b.jpg\r\n\n ./a.jpg \ngone.jpg\nx.NEF")
    at = place.name("lists")
    assert seen(source) == [
        (f"{at}/photos/b.jpg", b"b", None),
        (f"{at}/a.jpg", b"a", None),
        (f"{at}/gone.jpg", "no such file", None),
        (f"{at}/x.NEF", "no such file", None),
    ]
    sizes = {item.key.rpartition("/")[2]: item.size for item in listed(source)}
    assert sizes == {"b.jpg": 1, "a.jpg": 1, "gone.jpg": None, "x.NEF": None}


def test_a_local_list_names_paths_and_urls_anywhere(tmp_path: Path) -> None:
    place = Place("memory", tmp_path)
    place.write("far/a.jpg", b"far")
    (tmp_path / "b.jpg").write_bytes(b"near")
    (tmp_path / "sub").mkdir()
    lines = [
        "../b.jpg",
        str(tmp_path / "b.jpg"),
        f"file://{tmp_path}/b.jpg",
        "memory://far/a.jpg",
        "memory://far/none.jpg",
        "https://example.org/c.jpg?w=5",
        "sub",
    ]
    (tmp_path / "sub/l.txt").write_text("\n".join(lines))
    items = listed(f"{tmp_path}/sub/l.txt")
    near = FileImage(str(tmp_path / "b.jpg"))
    assert [(item.key, item.image, item.error) for item in items] == [
        (f"{tmp_path}/b.jpg", near, None),
        ("memory://far/a.jpg", RemoteImage("memory://far/a.jpg"), None),
        ("memory://far/none.jpg", None, "no such file"),
        ("https://example.org/c.jpg?w=5", RemoteImage("https://example.org/c.jpg?w=5"), None),
        (f"{tmp_path}/sub/sub", None, "no such file"),
    ]
    (tmp_path / "sub/sub").mkdir()
    assert listed(f"{tmp_path}/sub/l.txt")[-1].error == "this is a folder; expected a picture"


def test_a_list_from_elsewhere_stays_in_its_folder(tmp_path: Path) -> None:
    place = Place("memory", tmp_path)
    place.write("secret.jpg", b"secret")
    (tmp_path / "own.jpg").write_bytes(b"own")
    bad = ["../secret.jpg", "/secret.jpg", f"file://{tmp_path}/own.jpg", str(tmp_path / "b.jpg")]
    source = place.write("lists/l.txt", "\n".join([*bad, "sftp://host/x.jpg", "http://a.b/c.jpg"]))
    *outside, other, allowed = listed(source)
    assert [item.error for item in outside] == [
        f"{path} is outside the folder of memory://lists/l.txt" for path in bad
    ]
    assert other.error == "sftp://host/x.jpg is a URL that a remote file may not name"
    assert allowed.image == RemoteImage("http://a.b/c.jpg")


def test_a_password_in_a_list_is_an_error_that_does_not_show_it(tmp_path: Path) -> None:
    lines = [
        "https://me:hunter2@example.org/a.jpg",
        "s3://KEYID:hunter2@bucket/a.jpg",
        "https://b.s3.amazonaws.com/a.jpg?X-Amz-Signature=hunter2&w=5",
        "https://example.org/a.jpg?w=5&access_token=hunter2",
    ]
    (tmp_path / "l.txt").write_text("\n".join(lines))
    items = listed(f"{tmp_path}/l.txt", f"{tmp_path}/l.txt")
    assert [item.key for item in items] == [
        "https://***@example.org/a.jpg",
        "s3://***@bucket/a.jpg",
        "https://b.s3.amazonaws.com/a.jpg?X-Amz-Signature=***&w=5",
        "https://example.org/a.jpg?w=5&access_token=***",
    ]
    for item in items:
        assert item.image is None
        assert str(item.error).startswith(f"{item.key} has a password or token in it")
        assert "hunter2" not in repr(item)


def test_texts_are_one_a_line(place: Place) -> None:
    source = place.write("c.txt", "\ufeffa cat\n\n caf\u00e9 \u2028 x \r\nlast".encode())
    assert seen(source, listing=TEXTS) == [
        (f"{source}:1", b"a cat", "a cat"),
        (f"{source}:2", "the text is empty", None),
        (f"{source}:3", "café \u2028 x".encode(), "café \u2028 x"),
        (f"{source}:4", b"last", "last"),
    ]
    assert [item.size for item in listed(source, listing=TEXTS)] == [5, None, 11, 4]


def test_utf16_and_lines_in_another_encoding(place: Place) -> None:
    utf16 = place.write("w.txt", "one\r\ntw\u00f6\r\n".encode("utf-16"))
    assert seen(utf16, listing=TEXTS) == [
        (f"{utf16}:1", b"one", "one"),
        (f"{utf16}:2", "twö".encode(), "twö"),
    ]
    latin = place.write("l.txt", b"one\ncaf\xe9\nthree")
    assert seen(latin, listing=TEXTS) == [
        (f"{latin}:1", b"one", "one"),
        (f"{latin}:2", "the line is not UTF-8", None),
        (f"{latin}:3", b"three", "three"),
    ]


def test_an_empty_text_file_and_other_kinds_of_files_are_refused(place: Place) -> None:
    with pytest.raises(DataError, match=r"e\.txt holds no input"):
        listed(place.write("e.txt"), listing=TEXTS)
    with pytest.raises(DataError, match=r"a\.jpg holds no texts; expected a text file"):
        listed(place.write("d/a.jpg"), listing=TEXTS)
    with pytest.raises(DataError, match=r"d is a folder; expected a text file.*d/\*\.txt"):
        listed(place.name("d"), listing=TEXTS)
    with pytest.raises(DataError, match=r"a\.pdf is of an unknown kind"):
        listed(place.write("a.pdf"))
    with pytest.raises(DataError, match=r"gone\.txt does not exist"):
        listed(place.name("gone.txt"))
