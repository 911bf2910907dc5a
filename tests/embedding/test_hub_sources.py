"""Datasets of the Hub as sources, from the loopback Hub."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfFileSystem, close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from places import listed, seen, tar

from hfclip.embedding.settings import Listing
from hfclip.errors import DataError

URL = "hf://datasets/me/pets"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    HfFileSystem.clear_instance_cache()
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        hub.add_account("me", "hf_mine")
        yield hub
    close_session()
    HfFileSystem.clear_instance_cache()


def parquet() -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    file = io.BytesIO()
    rows = [{"bytes": b"one", "path": "1.jpg"}, None, {"bytes": b"three", "path": None}]
    parquet.write_table(pa.table({"image": rows, "caption": ["a", "b", "c"]}), file)
    return file.getvalue()


def files() -> dict[str, bytes | Path]:
    return {
        "README.md": b"# Pets\n",
        "photos/b.jpg": b"B",
        "photos/a/c.png": b"CC",
        "data/train-0.parquet": parquet(),
        "data/s-0.tar": tar([("0.jpg", b"zero"), ("0.txt", b"cap")]),
        "list.txt": b"photos/b.jpg\nphotos/none.jpg\n",
        "texts.txt": b"one\ntwo",
    }


def test_every_kind_of_source_is_read_from_the_hub(hub: LoopbackHub) -> None:
    hub.add_repository("datasets/me/pets", files())
    pictures = [(f"{URL}/photos/a/c.png", b"CC", None), (f"{URL}/photos/b.jpg", b"B", None)]
    assert seen(URL) == pictures
    assert seen(f"{URL}/photos") == pictures
    assert seen(f"{URL}/photos/**/*.jpg") == pictures[1:]
    assert seen(f"{URL}/photos/b.jpg") == pictures[1:]
    source = f"{URL}/data/train-0.parquet"
    rows = [b"one", "the row holds no picture", b"three"]
    assert seen(source) == [
        (f"{source}:{number}", content, caption)
        for number, (content, caption) in enumerate(zip(rows, "abc", strict=True), 1)
    ]
    assert seen(f"{URL}/data/s-{{0..0}}.tar") == [(f"{URL}/data/s-0.tar/0", b"zero", "cap")]
    assert seen(f"{URL}/list.txt") == [
        pictures[1],
        (f"{URL}/photos/none.jpg", "no such file", None),
    ]
    assert seen(f"{URL}/texts.txt", listing=Listing("texts"))[1] == (
        f"{URL}/texts.txt:2",
        b"two",
        "two",
    )


def test_references_name_the_commit_and_keys_do_not(hub: LoopbackHub) -> None:
    first = hub.add_repository("datasets/me/pets", files())
    old = listed(f"{URL}/photos/b.jpg", f"{URL}/photos")
    assert [item.key for item in old] == [f"{URL}/photos/b.jpg", f"{URL}/photos/a/c.png"]
    assert all(f"@{first}/photos/" in str(item.image) for item in old)
    hub.push("datasets/me/pets", {"photos/b.jpg": b"X"})
    new = listed(f"{URL}/photos/b.jpg", f"{URL}/photos")
    assert old[0].content() == b"B"
    assert new[0].content() == b"X"
    assert new[0].size == old[0].size == 1
    assert new[0].mtime_ns != old[0].mtime_ns
    assert new[1].mtime_ns == old[1].mtime_ns is not None
    assert seen(f"hf://datasets/me/pets@{first}/photos/b.jpg")[0][1] == b"B"


def test_a_missing_repository_branch_and_file_are_named(hub: LoopbackHub) -> None:
    hub.add_repository("datasets/me/pets", files())
    for source, text in (
        ("hf://datasets/me/none/a.jpg", "hf://datasets/me/none/a.jpg does not exist or is private"),
        (f"{URL}@none/photos", "does not exist: no such branch, tag or commit"),
        (f"{URL}/none.jpg", f"{URL}/none.jpg does not exist"),
    ):
        with pytest.raises(DataError, match=text):
            listed(source)
