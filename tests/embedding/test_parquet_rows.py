import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from places import Place, listed, seen

from hfclip.data import parquet_files
from hfclip.data.references import ParquetRow
from hfclip.embedding.settings import Listing
from hfclip.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

HUB = [
    {"bytes": b"zero", "path": "0.jpg"},
    {"bytes": None, "path": "beside.jpg"},
    None,
    {"bytes": None, "path": None},
    {"bytes": b"four", "path": None},
    {"bytes": None, "path": "gone.jpg"},
]


def test_pictures_as_the_hub_stores_them(place: Place) -> None:
    place.write("d/beside.jpg", b"one")
    captions = ["zero", "one", "two", None, " four ", "five"]
    source = place.write_parquet("d/t.parquet", {"image": HUB, "caption": captions})
    found = seen(source)
    assert [key for key, _, _ in found] == [f"{source}:{number}" for number in range(1, 7)]
    assert [text for _, _, text in found] == ["zero", "one", "two", None, "four", "five"]
    contents = [content for _, content, _ in found]
    assert contents[:5] == [b"zero", b"one", *["the row holds no picture"] * 2, b"four"]
    assert "gone.jpg" in str(contents[5])
    assert all(item.size is None for item in listed(source))
    assert len({item.mtime_ns for item in listed(source)}) == 1


@pytest.mark.parametrize("kind", ["bytes", "struct of bytes", "large"])
def test_other_types_of_pictures(place: Place, kind: str) -> None:
    contents = [b"one", None, b"three"]
    column: dict[str, Any] = {
        "bytes": pa.array(contents, pa.binary()),
        "large": pa.array(contents, pa.large_binary()),
        "struct of bytes": [{"bytes": content} for content in contents],
    }
    source = place.write_parquet("t.parquet", {"img": column[kind], "id": ["x", "y", "z"]})
    assert seen(source, listing=Listing(key_column="id")) == [
        ("x", b"one", None),
        ("y", "the row holds no picture", None),
        ("z", b"three", None),
    ]


def test_paths_in_a_parquet_file(place: Place) -> None:
    place.write("d/p/a.jpg", b"a")
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": None, "path": "p/a.jpg"}, {"bytes": None, "path": "p/gone.jpg"}, None]
    structs = pa.array(rows, kind)
    for column in (["p/a.jpg", "p/gone.jpg", None], structs):
        source = place.write_parquet("d/t.parquet", {"image": column, "text": ["a", "b", "c"]})
        assert seen(source) == [
            (f"{source}:1", b"a", "a"),
            (f"{source}:2", "no such file", "b"),
            (f"{source}:3", "the picture is missing", None),
        ]
        assert listed(source)[0].size == 1


def test_texts_come_from_a_column(place: Place) -> None:
    source = place.write_parquet("t.parquet", {"caption": ["a", None, " "], "id": [5, 6, None]})
    assert seen(source, listing=Listing("texts")) == [
        (f"{source}:1", b"a", "a"),
        (f"{source}:2", "the text is empty", None),
        (f"{source}:3", "the text is empty", None),
    ]
    assert seen(source, listing=Listing("texts", key_column="id")) == [
        ("5", b"a", "a"),
        ("6", "the text is empty", None),
        (f"{source}:3", "the key is empty", None),
    ]


def test_a_damaged_file_alone_is_refused_and_among_others_is_one_error(place: Place) -> None:
    good = place.write_parquet("a.parquet", {"image": [b"one"]})
    bad = place.write("b.parquet", b"PAR1 cut")
    with pytest.raises(DataError, match=r"b\.parquet is not a Parquet file, or is damaged"):
        listed(bad)
    found = seen(place.name("*.parquet"))
    assert found[0] == (f"{good}:1", b"one", None)
    assert found[1][0] == bad
    assert "is not a Parquet file, or is damaged" in str(found[1][1])


def test_damage_in_the_middle_stays_in_step(place: Place) -> None:
    columns: dict[str, list[Any]] = {
        "image": [b"%d" % number * 50 for number in range(40)],
        "text": list("abcd") * 10,
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=10, use_dictionary=False)
    content = bytearray(file.getvalue())
    start = pq.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    content[start : start + 60] = b"\xff" * 60
    source = place.write("t.parquet", bytes(content))
    found = seen(source)
    assert [text for _, _, text in found] == list("abcd") * 10
    assert [f for _, f, _ in found[:10] + found[20:]] == columns["image"][:10] + columns["image"][
        20:
    ]
    assert all("is damaged or has changed" in str(error) for _, error, _ in found[10:20])


def test_the_picture_column_is_not_read_for_a_listing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = place.write_parquet("t.parquet", {"image": HUB, "text": ["a"] * 6})
    monkeypatch.setattr(parquet_files, "read_value", None)
    read: list[list[str]] = []
    original = pq.ParquetFile.iter_batches

    def noted(self: Any, *args: Any, **options: Any) -> Any:
        read.append(options["columns"])
        return original(self, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    assert len(listed(source)) == 6
    assert read == [["text"], ["text"]]


def test_many_threads_read_rows_of_one_row_group_in_one_pass(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [b"%06d" % number * 3000 for number in range(600)]
    source = place.write_parquet("t.parquet", {"image": contents})
    monkeypatch.setattr(parquet_files, "_BATCH", 400_000)
    passes: list[int] = []
    original = parquet_files._Stream._read

    def counted(self: Any) -> Any:
        passes.append(threading.get_ident())
        return original(self)

    monkeypatch.setattr(parquet_files._Stream, "_read", counted)
    items = listed(source)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda item: item.content(), items)) == contents
    assert len(passes) == 1
    (stream,) = parquet_files._streams._kept.values()
    assert sum(batch.values.nbytes for batch in stream._kept) < 1_000_000
    assert items[599].content() == contents[599]
    assert len(passes) == 1
    assert items[0].content() == contents[0]
    assert len(passes) == 2


def test_a_file_that_was_replaced_is_read_again(place: Place) -> None:
    source = place.write_parquet("t.parquet", {"image": [b"one", b"two"]})
    assert [content for _, content, _ in seen(source)] == [b"one", b"two"]
    place.write_parquet("t.parquet", {"image": [b"eins", b"zwei"]})
    assert [content for _, content, _ in seen(source)] == [b"eins", b"zwei"]


def test_a_row_that_does_not_exist_is_an_error(place: Place) -> None:
    place.write_parquet("t.parquet", {"image": [b"one"]})
    where = f"{place.folder}/t.parquet" if place.kind == "local" else place.name("t.parquet")
    for group, row in ((0, 1), (1, 0)):
        with pytest.raises(DataError, match="is damaged or has changed"):
            ParquetRow(where, group, row, "image").read()
    with pytest.raises(DataError, match="the row holds no picture"):
        ParquetRow(where, 0, 0, "other").read()
