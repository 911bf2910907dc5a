import json

import pytest
from places import Place, listed, seen

from hfclip.embedding.settings import Listing
from hfclip.errors import DataError

TEXTS = Listing("texts")


def write_pictures(place: Place) -> None:
    for name in "abc":
        place.write(f"t/p/{name}.jpg", name)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_a_table_names_pictures_captions_and_keys(place: Place, kind: str) -> None:
    write_pictures(place)
    rows = [
        ("p/a.jpg", 'an "a", quoted', "k1"),
        ("p/none.jpg", "gone", "k2"),
        ("", "no path", "k3"),
        ("p/c.jpg", "", "k4"),
    ]
    names = ("file", "caption", "id")
    if kind == "jsonl":
        source = place.write_lines(
            "t/x.jsonl", [dict(zip(names, row, strict=True)) for row in rows]
        )
    else:
        mark = "," if kind == "csv" else "\t"
        lines = [mark.join(json.dumps(c).replace('\\"', '""') for c in row) for row in rows]
        source = place.write(f"t/x.{kind}", "\n".join([mark.join(names), *lines]))
    first = 1 if kind == "jsonl" else 2
    expected = [
        (b"a", 'an "a", quoted'),
        ("no such file", "gone"),
        ("the path of the picture is empty or malformed", "no path"),
        (b"c", None),
    ]
    assert seen(source) == [
        (f"{source}:{number}", *row) for number, row in enumerate(expected, first)
    ]
    with_key = Listing(key_column="id", captions=False)
    assert seen(source, listing=with_key) == [
        (f"k{number}", content, None) for number, (content, _) in enumerate(expected, 1)
    ]


def test_broken_rows_are_errors_at_their_place(place: Place) -> None:
    write_pictures(place)
    source = place.write("t/x.csv", "file,caption\np/a.jpg,one\np/b.jpg\np/c.jpg,three\n")
    assert seen(source) == [
        (f"{source}:2", b"a", "one"),
        (
            f"{source}:3",
            "the row has 1 cells; the header has 2. Quote cells that contain a comma",
            None,
        ),
        (f"{source}:4", b"c", "three"),
    ]
    lines = ['{"file": "p/a.jpg", "text": "one"}', "{broken", "[1]", '{"text": "no path"}']
    lines += ['{"file": "p/b.jpg", "text": {"en": "x"}}', '{"file": "p/c.jpg", "text": "\\ud800"}']
    lines += ['{"file": "p/c.jpg", "text": ["", "first", "second"]}', ""]
    source = place.write("t/x.jsonl", "\n".join(lines))
    assert seen(source) == [
        (f"{source}:1", b"a", "one"),
        (f"{source}:2", "the line is not JSON in UTF-8", None),
        (f"{source}:3", "the row is a list; expected an object", None),
        (f"{source}:4", "the picture is missing", None),
        (f"{source}:5", "the caption is a dict of 1 values; expected text", None),
        (f"{source}:6", "the text has characters that are not Unicode", None),
        (f"{source}:7", b"c", "first"),
    ]


def test_an_open_quotation_mark_makes_the_rest_one_error(place: Place) -> None:
    write_pictures(place)
    rows = "".join(f'p/a.jpg,"caption, {number}"\n' for number in range(300))
    source = place.write("t/x.csv", f'file,caption\n{rows}p/b.jpg,"open\n{rows}')
    found = seen(source)
    assert len(found) == 301
    assert found[299] == (f"{source}:301", b"a", "caption, 299")
    assert found[300][0] == source
    assert str(found[300][1]).startswith(f"{source} cannot be read after line 301")


def test_a_table_after_its_sample_is_read_row_by_row(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfclip.data import delimited

    monkeypatch.setattr(delimited, "_SAMPLE_SIZE", 8000)
    write_pictures(place)
    rows = "".join(f'p/a.jpg;"two\nlines {number}"\r\n' for number in range(600))
    source = place.write("t/x.csv", f"file;caption\r\n{rows}")
    assert seen(source) == [
        (f"{source}:{2 * number + 2}", b"a", f"two\nlines {number}") for number in range(600)
    ]


def test_columns_that_are_missing_or_ambiguous_are_refused(place: Place) -> None:
    write_pictures(place)
    source = place.write("t/x.csv", "file,caption,title\np/a.jpg,one,two\n")
    with pytest.raises(DataError, match=r"2 columns could hold the captions: 'caption', 'title'"):
        listed(source)
    assert seen(source, listing=Listing(caption_column="title")) == [(f"{source}:2", b"a", "two")]
    for option in ("image_column", "caption_column", "key_column"):
        with pytest.raises(DataError, match=rf"has no column 'x' \({option}\)"):
            listed(source, listing=Listing(**{option: "x"}))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"y\.csv has no rows"):
        listed(place.write("t/y.csv", "file,caption\n"))
    with pytest.raises(DataError, match="no column is named like texts"):
        listed(place.write("t/z.csv", "a,b\nc,d\n"), listing=TEXTS)


def test_texts_come_from_a_column(place: Place) -> None:
    source = place.write("x.tsv", "id\tcaption\n1\ta cat\n2\t\n3\t a dog \n")
    assert seen(source, listing=TEXTS) == [
        (f"{source}:2", b"a cat", "a cat"),
        (f"{source}:3", "the text is empty", None),
        (f"{source}:4", b"a dog", "a dog"),
    ]
    chosen = Listing("texts", caption_column="id", key_column="caption")
    assert seen(source, listing=chosen) == [
        ("a cat", b"1", "1"),
        (f"{source}:3", "the key is empty", None),
        ("a dog", b"3", "3"),
    ]


def test_two_inputs_with_one_key_are_refused_and_one_input_is_listed_once(place: Place) -> None:
    write_pictures(place)
    source = place.write("t/x.csv", "file,id\np/a.jpg,k\np/b.jpg,k\n")
    with pytest.raises(DataError, match=r"Two inputs have the key 'k'. Rename one of them"):
        listed(source, listing=Listing(key_column="id"))
    source = place.write("t/y.csv", "file,id\np/a.jpg,k\np/a.jpg,k\np/b.jpg,l\n")
    assert seen(source, listing=Listing(key_column="id")) == [("k", b"a", None), ("l", b"b", None)]
    folder = place.name("t/p")
    keys = [key for key, _, _ in seen(f"{folder}/b.jpg", folder, f"{folder}/*.jpg")]
    assert keys == [f"{folder}/{name}.jpg" for name in "bac"]
