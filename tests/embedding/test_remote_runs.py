"""Whole runs at URLs: kills, shares, a server that is started again, and what reads the result."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from embedded import expected, live, write
from object_storage import S3Server, environment_with, files_at, put
from pictures import Result, draw_folder, drawn, embed, saved

import hfclip
from hfclip.cli import main
from hfclip.data import asking
from hfclip.embedding.part_files import complete_parts, named_parts, part_file, recorded_parts
from hfclip.embedding.plan import Plan

SCRIPT = Path(__file__).parents[1] / "remote_run.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(8):
        write(tmp_path / "in" / f"{number}.jpg", f"content {number}".encode())
    return tmp_path / "in"


def started(python: Path, folder: Path, out: str, *, share: str = "1 1", caption: int = 1) -> Any:
    """Starts a run in a process of its own."""
    return subprocess.Popen(
        [python, SCRIPT, folder, out, *share.split(), str(caption)],
        env=environment_with(PYTHONPATH=":".join(sys.path), HF_HOME=str(folder.parent / "home")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: Any) -> tuple[list[str], str]:
    """Returns the keys that a run has encoded, and its warnings."""
    printed, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    return json.loads(printed), errors


def is_upload(environment: dict[str, Any], number: int) -> bool:
    return bool(
        environment["REQUEST_METHOD"] == "PUT"
        and environment["PATH_INFO"].endswith(part_file(number))
    )


def test_a_run_that_is_killed_in_the_middle_of_an_upload_leaves_no_half_part(
    folder: Path, bucket: str, s3: S3Server, python: Path
) -> None:
    half, gone = threading.Event(), threading.Event()

    def gate(environment: dict[str, Any]) -> None:
        if is_upload(environment, 1) and not half.is_set():
            assert environment["wsgi.input"].read(1_000_000)
            half.set()
            assert gone.wait(60)
            raise ConnectionResetError

    s3.gate = gate
    process = started(python, folder, bucket, caption=10_000_000)
    assert half.wait(60), process.communicate()
    process.kill()
    process.communicate()
    assert named_parts(bucket) == complete_parts(bucket) == [0]
    gone.set()
    time.sleep(0.2)
    assert named_parts(bucket) == complete_parts(bucket) == [0]
    before = files_at(bucket)[part_file(0)]
    keys, errors = ended(started(python, folder, bucket))
    assert keys == [f"in/{number}.jpg" for number in range(2, 8)]
    assert errors == ""  # the lock of a process that has ended here is no hindrance
    assert files_at(bucket)[part_file(0)] == before
    assert live(bucket) == expected(folder)
    assert list(recorded_parts(bucket)) == list(Plan(bucket).part_numbers) == [0, 1, 2, 3]


def test_shares_at_once_make_one_collection(folder: Path, bucket: str, python: Path) -> None:
    for number in range(8, 25):
        write(folder / f"{number}.jpg", f"content {number}".encode())
    processes = [started(python, folder, bucket, share=f"{share} 2") for share in (1, 2)]
    keys = [ended(process)[0] for process in processes]
    assert sorted(keys[0] + keys[1]) == sorted(expected(folder))
    assert (len(keys[0]), len(keys[1])) == (13, 12)
    assert live(bucket) == expected(folder)
    assert not [name for name in files_at(bucket) if "/locks/" in name]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves repeating requests to hfclip, and makes its pauses short."""
    from fsspec import get_filesystem_class

    s3 = get_filesystem_class("s3")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3, "retries", 1)
    monkeypatch.setattr(asking, "PAUSES", (0.1,) * 300)
    s3.clear_instance_cache()
    yield
    s3.clear_instance_cache()


def test_a_run_goes_on_when_the_server_is_started_again(
    tmp_path: Path, bucket: str, s3: S3Server, hub_home: Path, quick: None
) -> None:
    pictures = draw_folder(tmp_path / "pictures", 30)
    arrived = threading.Event()

    def gate(environment: dict[str, Any]) -> None:
        if is_upload(environment, 1) and not arrived.is_set():
            arrived.set()
            raise ConnectionResetError

    def restart() -> None:
        assert arrived.wait(60)
        s3.stop()
        time.sleep(0.5)  # several pauses
        s3.start()

    s3.gate = gate
    restarting = threading.Thread(target=restart)
    restarting.start()
    result = embed(pictures, bucket, "--part-size", "10")
    restarting.join()
    assert (result.status, result.summary["encoded"], result.summary["embedded"]) == (0, 30, 30)
    assert complete_parts(bucket) == [0, 1, 2]
    local = tmp_path / "local"
    embed(pictures, local, "--part-size", "10")
    files = files_at(bucket)
    for number in range(3):
        assert files[part_file(number)] == (local / part_file(number)).read_bytes()


def command(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Returns a folder of pictures by class, with near-duplicates and a broken file."""
    for label in ("dark", "light"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(12):
            picture = drawn(number + 100 * (label == "light"))
            if label == "dark":
                picture = picture.point(lambda value: value // 6)
            picture.save(tmp_path / "photos" / label / f"{number:02}.png")
    (tmp_path / "photos" / "dark" / "copy.png").write_bytes(
        (tmp_path / "photos" / "dark" / "03.png").read_bytes()
    )
    (tmp_path / "photos" / "light" / "broken.png").write_bytes(b"broken")
    return tmp_path / "photos"


def same_output(arguments: Sequence[object], remote: str, local: Path, status: int = 0) -> str:
    """Runs a command for both collections, and returns what it prints for both."""
    outputs = []
    for out in (remote, local):
        result = command(arguments[0], out, *arguments[1:])
        outputs.append((result.status, result.out.replace(str(out), "OUT")))
    assert outputs[0] == outputs[1]
    assert outputs[0][0] == status, outputs
    return outputs[0][1]


def test_all_commands_read_a_collection_at_a_url(photos: Path, remote: str, tmp_path: Path) -> None:
    local = tmp_path / "local"
    for out in (remote, local):
        result = embed(photos, out, "--part-size", "10")
        assert (result.status, result.summary["embedded"], result.summary["errors"]) == (0, 25, 1)
    assert result.summary["errors_file"] == str(local / "errors.csv")
    key = f"{photos}/dark/03.png"
    found = json.loads(same_output(["search", "--like", key, "--top", 3, "--json"], remote, local))
    assert found[0]["key"] == f"{photos}/dark/copy.png"
    assert same_output(["search", "a handwritten seven", "--json"], remote, local)
    groups = json.loads(same_output(["duplicates", "--json"], remote, local))
    assert any(len(group) == 2 for group in groups), groups
    assert same_output(["classify", "--labels", "zero,one", "--json"], remote, local, 1)
    same_output(["probe", "--labels-from", "folder", "--json"], remote, local)
    sheet, copies = tmp_path / "sheet.png", tmp_path / "copies"
    done = command(
        "search", remote, "--like", key, "--top", 2, "--sheet", sheet, "--copy-to", copies
    )
    assert done.status == 0, done.err
    assert sheet.stat().st_size > 1_000
    assert (photos / "dark" / "03.png").read_bytes() in [
        path.read_bytes() for path in copies.iterdir()
    ]


def test_sources_and_output_may_both_be_on_object_storage(
    photos: Path, bucket: str, hub_home: Path, tmp_path: Path
) -> None:
    files = {path.relative_to(photos).as_posix(): path for path in photos.rglob("*.png")}
    put(f"{bucket}/photos", {name: path.read_bytes() for name, path in files.items()})
    out = f"{bucket}/embedded"
    first = embed(f"{bucket}/photos", out, "--part-size", "10").summary
    assert (first["new"], first["embedded"], first["errors"]) == (26, 25, 1)
    assert first["errors_file"] == f"{out}/errors.csv"
    embed(photos, tmp_path / "local", "--part-size", "10")
    remote, local = hfclip.Embeddings(out), hfclip.Embeddings(tmp_path / "local")
    assert (remote.out, remote.is_whole) == (out, True)
    assert [key.removeprefix(f"{bucket}/") for key in remote.keys] == [
        key.removeprefix(f"{tmp_path}/") for key in local.keys
    ]
    np.testing.assert_array_equal(remote.vectors, local.vectors)
    assert remote.folder.is_relative_to(hub_home)
    rows = np.arange(len(remote))
    np.testing.assert_array_equal(remote.digests(rows), local.digests(rows))
    assert remote.digests(rows).any(axis=1).all()
    item = remote.items([remote.position(f"{bucket}/photos/light/05.png")])[0]
    assert item.content() == files["light/05.png"].read_bytes()
    assert embed(f"{bucket}/photos", out).summary["encoded"] == 0
    put(f"{bucket}/photos", {"dark/new.png": saved(drawn(500), "PNG")})
    put(f"{bucket}/photos", {"light/broken.png": saved(drawn(501), "PNG")})
    second = embed(f"{bucket}/photos", out).summary
    assert [second[name] for name in ("new", "changed", "encoded", "errors")] == [1, 1, 2, 0]
    assert "errors.csv" not in files_at(out)
    assert len(hfclip.Embeddings(out)) == 27
