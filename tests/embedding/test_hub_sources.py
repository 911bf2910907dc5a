"""Datasets of the Hub as sources, from the loopback Hub."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from embedded import MANIFEST, run, vector, write
from huggingface_hub import HfFileSystem, close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from places import listed, seen, tar

from hfclip.embedding.embeddings import Embeddings
from hfclip.embedding.listing import list_items
from hfclip.embedding.opening import opened
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


def test_a_listing_sees_one_commit_of_a_branch(hub: LoopbackHub, tmp_path: Path) -> None:
    first = hub.add_repository("datasets/me/pets", files())
    (tmp_path / "list.txt").write_text(f"{URL}/photos/b.jpg\n{URL}/photos/none.jpg\n")
    names = [f"{URL}/data/s-{{0,0}}.tar", str(tmp_path / "list.txt"), f"{URL}/photos"]
    items = list_items(names, Listing())
    found = [next(items)]
    hub.push("datasets/me/pets", {"photos/b.jpg": b"X"})
    found += items
    assert [item.key for item in found] == [
        f"{URL}/data/s-0.tar/0",
        f"{URL}/photos/b.jpg",
        f"{URL}/photos/none.jpg",
        f"{URL}/photos/a/c.png",
    ]
    assert all(f"@{first}/" in str(item.image) for item in found if item.error is None)
    assert found[1].content() == b"B"


def test_reading_a_picture_takes_one_request_and_its_redirect(hub: LoopbackHub) -> None:
    pictures: dict[str, bytes | Path] = {
        f"p/{number:02}.jpg": b"%d" % number for number in range(20)
    }
    hub.add_repository("datasets/me/pets", pictures)
    items = listed(f"{URL}/p")
    assert items[0].content() == b"0"
    hub.forget_calls()
    assert [item.content() for item in items] == list(pictures.values())
    kinds = [call.path.split("/")[1] for call in hub.calls if call.method == "GET"]
    assert kinds == ["datasets", "api"] * 20
    assert all("/resolve" in call.path for call in hub.calls)


def test_a_missing_repository_branch_and_file_are_named(hub: LoopbackHub) -> None:
    hub.add_repository("datasets/me/pets", files())
    for source, text in (
        ("hf://datasets/me/none/a.jpg", "hf://datasets/me/none/a.jpg does not exist or is private"),
        (f"{URL}@none/photos", "does not exist: no such branch, tag or commit"),
        (f"{URL}/none.jpg", f"{URL}/none.jpg does not exist"),
    ):
        with pytest.raises(DataError, match=text):
            listed(source)


def test_a_collection_that_was_uploaded_to_the_hub_is_read_and_not_written(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for number in range(5):
        write(tmp_path / "in" / f"{number}.jpg", b"%d" % number)
    with opened(out, MANIFEST) as collection:
        run(tmp_path / "in", out, opened=collection)
    local = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"]
    hub.add_repository(
        "datasets/me/embedded", {path.relative_to(out).as_posix(): path for path in local}
    )
    url = "hf://datasets/me/embedded"
    remote = Embeddings(url)
    assert list(remote.keys) == [f"in/{number}.jpg" for number in range(5)]
    assert remote.vectors.tolist() == [vector(b"%d" % number) for number in range(5)]
    assert remote.digests(np.arange(5)).any(axis=1).all()
    with (
        pytest.raises(
            DataError, match=r"hf://datasets/me/embedded cannot be written\. Each file of"
        ),
        opened(url, MANIFEST),
    ):
        pass
