"""Stores: one for a path, one for a URL, the same in another process."""

import os
import pickle
from io import BytesIO
from pathlib import Path

import pytest
from places import forget_memory

from hfclip.embedding.stores import open_store
from hfclip.errors import DataError


def test_a_path_a_local_url_and_a_url_have_their_stores(tmp_path: Path) -> None:
    for out in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        store = open_store(out)
        assert (str(store), store.folder) == (str(tmp_path), tmp_path)
        assert open_store(store) is store
    remote = open_store("s3://bucket/a//b/")
    assert (str(remote), remote.folder) == ("s3://bucket/a//b/", None)
    assert remote.path("part-00000.parquet") == "s3://bucket/a//b/part-00000.parquet"


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_both_kinds_do_the_same(kind: str, tmp_path: Path, hub_home: Path) -> None:
    store = open_store(tmp_path / "out" if kind == "local" else "memory://out")
    store.prepare()
    assert (store.names(), store.files(), store.names("none")) == ([], {}, [])
    assert not store.exists("d/x")
    for read in (store.read, lambda name: store.copy(name).read_bytes()):
        with pytest.raises(FileNotFoundError, match="d/x"):
            read("d/x")
    store.remove("d/x")
    store.write("d/x", lambda path: path.write_bytes(b"content"))
    store.write_text("t", "a\r\né\n")
    assert store.read("t") == "a\r\né\n".encode()
    assert store.read("d/x") == store.copy("d/x").read_bytes() == b"content"
    source = store.source("d/x")
    assert (source.read() if isinstance(source, BytesIO) else source.read_bytes()) == b"content"
    assert sorted(store.names()) == ["d", "t"]
    before = store.files("d")["x"]
    assert before.size == 7
    store.write("d/x", lambda path: path.write_bytes(b"changed"))
    assert store.files("d")["x"].version != before.version
    assert store.copy("d/x").read_bytes() == b"changed"

    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="the disk is full"):
        store.write("d/x", fails)
    assert store.read("d/x") == b"changed"
    assert store.names("d") == ["x"]
    with store.scratch() as folder:
        (folder / "temporary").write_bytes(b"")
    store.remove("d/x")
    assert store.names("d") == []
    forget_memory()


def test_a_store_is_the_same_in_a_process_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    local = pickle.dumps(open_store("out"))
    remote = pickle.dumps(open_store("s3://bucket/out"))
    monkeypatch.chdir("/")
    assert pickle.loads(local).folder == tmp_path / "out"
    assert str(pickle.loads(remote)) == "s3://bucket/out"


def test_the_caches_of_collections_are_apart(tmp_path: Path, hub_home: Path) -> None:
    assert open_store(tmp_path).caches[0] == tmp_path / ".hfclip"
    caches = [
        open_store(out).caches[-1]
        for out in (tmp_path, tmp_path / "a", "s3://bucket/a", "s3://bucket/b", "memory://bucket/a")
    ]
    assert len(set(caches)) == len(caches)
    assert all(cache.parent == hub_home / "hfclip" / "matrices" for cache in caches)
    assert open_store("S3://bucket/a/").caches == open_store("s3://bucket/a").caches


def test_a_url_with_a_secret_is_refused_and_not_shown() -> None:
    with pytest.raises(DataError) as caught:
        open_store("s3://KEY:hunter2@bucket/out")
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith("s3://***@bucket/out has a password or token in it")


def test_the_time_of_a_local_file_is_part_of_its_version(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write_text("x", "one")
    before = store.files()["x"].version
    store.write_text("x", "two")
    os.utime(tmp_path / "x", ns=(1, 1))
    assert store.files()["x"].version != before
