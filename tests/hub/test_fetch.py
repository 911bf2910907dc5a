"""Loading from a loopback Hub with the real client, with and without faults."""

import dataclasses
import hashlib
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY_VIT, draw
from huggingface_hub import close_session, constants
from logged import Log
from loopback.faults import Before, Corrupt, Fault, Hang, HangUp, Reset, ShortBody, Slow, Status
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from safetensors.torch import save_file

import hfclip
from hfclip import releases
from hfclip.config import ClipConfig
from hfclip.hub import fetch as hfclip_hub
from hfclip.hub import integrity, patience
from hfclip.hub.fetch import Access
from hfclip.network.clip import convert_weights
from hfclip.network.initialization import NoInitialization

TOKEN = "hf_secretOfTheTests"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
MODEL = draw(TINY_VIT)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published")
    MODEL.save_pretrained(path)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("HFCLIP_NAMESPACE", raising=False)
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, home, monkeypatch)
        hub.add_account("me", TOKEN)
        hub.add_repository("me/clip", {name: folder / name for name in (CONFIG, WEIGHTS)})
        yield hub
    close_session()


@pytest.fixture
def cache() -> Path:
    return Path(constants.HF_HUB_CACHE) / "models--me--clip"


def is_whole(model: torch.nn.Module) -> bool:
    expected = MODEL.state_dict()
    state = model.state_dict()
    return state.keys() == expected.keys() and all(
        torch.equal(state[key], expected[key]) for key in expected
    )


def load(name: str = "me/clip", **options: object) -> bool:
    """Loads a model and returns whether every tensor is correct."""
    return is_whole(hfclip.load(name, "cpu", **options)[0])  # type: ignore[call-overload]


def blob(cache: Path, filename: str = WEIGHTS) -> Path:
    """Returns the only cached file with a name."""
    (link,) = cache.glob(f"snapshots/*/{filename}")
    return link.resolve()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def requests(hub: LoopbackHub) -> list[tuple[str, str]]:
    return [(call.method, call.file or call.path) for call in hub.calls]


# Without faults.


def test_a_repository_loads_and_its_files_are_verified(hub: LoopbackHub, cache: Path) -> None:
    assert load()
    assert integrity.is_verified(next(cache.glob(f"snapshots/*/{WEIGHTS}")))
    assert integrity.is_verified(next(cache.glob(f"snapshots/*/{CONFIG}")))


@pytest.mark.parametrize("name", ["me/clip", "hf-hub:me/clip", "me/clip@main", "me/clip@v1"])
def test_every_form_of_a_repository_name_loads_the_same_model(name: str, hub: LoopbackHub) -> None:
    hub.push("me/clip", {}, tag="v1")
    assert load(name)


def test_a_second_load_makes_one_request_and_hashes_nothing(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load()
    hub.forget_calls()
    monkeypatch.setattr(integrity, "compute", None)
    assert load()
    assert requests(hub) == [("GET", "/api/models/me/clip")]


def test_a_pinned_commit_loads_again_without_any_request(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.repository("me/clip").branches["main"].id
    assert load(revision=commit)
    hub.forget_calls()
    monkeypatch.setattr(integrity, "compute", None)
    assert load(revision=commit)
    assert load(f"me/clip@{commit}")
    assert hub.calls == []


def test_a_cached_model_loads_offline(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load()
    hub.forget_calls()
    assert load(local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load()
    assert hub.calls == []


def test_from_pretrained_loads_the_same_model(hub: LoopbackHub) -> None:
    model = hfclip.CLIP.from_pretrained("me/clip")
    assert is_whole(model)
    assert not model.training
    hub.forget_calls()
    assert is_whole(hfclip.CLIP.from_pretrained("me/clip", local_files_only=True))
    assert hub.calls == []


def test_a_push_between_two_requests_cannot_mix_two_commits(hub: LoopbackHub) -> None:
    other = b'{"model_type": "another"}'
    push = Before(lambda: hub.push("me/clip", {CONFIG: other, WEIGHTS: b"other"}))
    hub.fault(push, WEIGHTS, method="HEAD")
    assert load()
    hub.forget_faults()
    with pytest.raises(hfclip.HfclipError):
        load()


def test_a_new_commit_is_loaded(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    assert load()
    changed = {key: value + 1 for key, value in MODEL.state_dict().items()}
    save_file(changed, tmp_path / WEIGHTS)
    hub.push("me/clip", {WEIGHTS: tmp_path / WEIGHTS})
    model, _ = hfclip.load("me/clip", "cpu")
    assert torch.equal(model.state_dict()["visual.proj"], changed["visual.proj"])


@pytest.mark.parametrize("kept", [CONFIG, WEIGHTS])
def test_a_partly_cached_commit_is_completed(kept: str, hub: LoopbackHub, cache: Path) -> None:
    commit = hub.repository("me/clip").branches["main"].id
    assert load(revision=commit)
    (link,) = [path for path in cache.glob("snapshots/*/*") if path.name != kept]
    link.unlink()
    with pytest.raises(hfclip.NetworkError, match="not in the cache"):
        load(revision=commit, local_files_only=True)
    assert load(revision=commit)


def test_files_cached_by_another_tool_are_used_offline(
    hub: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download("me/clip")
    hub.forget_calls()
    assert load(local_files_only=True)
    assert hub.calls == []


def test_the_given_cache_folder_is_used(hub: LoopbackHub, tmp_path: Path) -> None:
    assert load(cache_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "models--me--clip").is_dir()
    assert not Path(constants.HF_HUB_CACHE).exists()


def test_a_forced_download_requests_every_file_again(hub: LoopbackHub) -> None:
    assert load()
    hub.forget_calls()
    assert load(force_download=True)
    assert ("GET", WEIGHTS) in requests(hub)


# Damage in the cache.


@pytest.mark.parametrize("filename", [WEIGHTS, CONFIG])
def test_a_cached_file_with_one_flipped_bit_is_fetched_again(
    filename: str, hub: LoopbackHub, cache: Path
) -> None:
    assert load()
    flip_a_bit(blob(cache, filename))
    hub.forget_calls()
    assert load()
    assert ("GET", filename) in requests(hub)
    assert load(local_files_only=True)


def test_a_truncated_blob_is_fetched_again(hub: LoopbackHub, cache: Path) -> None:
    assert load()
    for length in (0, 1000):
        os.truncate(blob(cache), length)
        assert load()


def test_a_replaced_file_with_its_old_timestamp_is_fetched_again(
    hub: LoopbackHub, cache: Path
) -> None:
    assert load()
    path = blob(cache)
    before = path.stat()
    flip_a_bit(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load()


def test_damage_that_cannot_be_repaired_offline_names_both_hashes(
    hub: LoopbackHub, cache: Path
) -> None:
    assert load()
    path = blob(cache)
    good = path.name
    flip_a_bit(path)
    bad = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(hfclip.IntegrityError, match=r"hfclip verify .* --repair") as caught:
        load(local_files_only=True)
    assert good in str(caught.value)
    assert bad in str(caught.value)


def test_a_pinned_commit_is_repaired_too(hub: LoopbackHub, cache: Path) -> None:
    commit = hub.repository("me/clip").branches["main"].id
    assert load(revision=commit)
    flip_a_bit(blob(cache))
    assert load(revision=commit)


def test_files_are_verified_and_repaired_without_symlinks(
    hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    assert load()
    (path,) = cache.glob(f"snapshots/*/{WEIGHTS}")
    assert not path.is_symlink()
    hub.forget_calls()
    assert load(local_files_only=True)
    assert hub.calls == []
    flip_a_bit(path)
    with pytest.raises(hfclip.IntegrityError):
        load(local_files_only=True)
    assert load()


def test_files_without_symlinks_and_records_are_refused_offline(
    hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    assert load()
    shutil.rmtree(Path(constants.HF_HOME) / "hfclip")
    with pytest.raises(hfclip.IntegrityError, match="is unknown on this machine"):
        load(local_files_only=True)
    assert load()


# Faults during a download.


FAULTS: list[tuple[str, Fault]] = [
    ("wrong bytes", Corrupt()),
    ("a short body", ShortBody()),
    ("hanging up", HangUp(after=1000)),
    ("a reset", Reset(after=1000)),
    ("a reset at once", Reset()),
    ("silence", Hang()),
    ("silence midway", Hang(after=1000)),
    ("503", Status(503)),
    ("429", Status(429, headers={"Retry-After": "1"})),
]
every_fault = pytest.mark.parametrize("fault", [f for _, f in FAULTS], ids=[n for n, _ in FAULTS])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens both limits to a second, for tests of what happens after them or beyond them."""
    monkeypatch.setattr(patience, "STALL", 1.0)
    monkeypatch.setattr(patience, "LIMIT", 1.0)


@every_fault
def test_a_temporary_fault_does_no_harm(fault: Fault, hub: LoopbackHub, cache: Path) -> None:
    order = hub.fault(fault, WEIGHTS)
    began = time.monotonic()
    assert load()
    assert order.struck == 1
    assert time.monotonic() - began < 10
    assert leftovers(cache) == []


@every_fault
def test_a_permanent_fault_raises_an_error_and_leaves_no_files(
    fault: Fault, hub: LoopbackHub, cache: Path
) -> None:
    hub.fault(fault, WEIGHTS, times=None)
    began = time.monotonic()
    with pytest.raises(hfclip.HubError) as caught:
        load()
    assert time.monotonic() - began < 10
    assert_is_clear(caught.value)
    assert leftovers(cache) == []
    hub.forget_faults()
    assert load()


@pytest.mark.parametrize("fault", [Hang(), Status(503), Reset()], ids=["silence", "503", "reset"])
@pytest.mark.parametrize("where", [WEIGHTS, "/*"], ids=["the file's metadata", "everything"])
def test_an_unavailable_hub_is_given_up_in_ten_seconds(
    fault: Fault, where: str, hub: LoopbackHub
) -> None:
    hub.fault(fault, where, method="HEAD" if where == WEIGHTS else "*", times=None)
    began = time.monotonic()
    with pytest.raises(hfclip.NetworkError) as caught:
        load()
    assert time.monotonic() - began < 10
    assert_is_clear(caught.value)


@pytest.mark.parametrize("fault", [Hang(), Status(503), Reset()], ids=["silence", "503", "reset"])
@pytest.mark.usefixtures("impatient")
def test_cached_models_load_while_the_hub_is_unavailable(
    fault: Fault, hub: LoopbackHub, log: Log
) -> None:
    assert load()
    hub.fault(fault, "/*", method="*", times=None)
    assert load()
    assert "Using the cached commit" in log.text


@pytest.mark.parametrize("name", ["me/clip", "ViT-B/32", "RN101"])
def test_a_refused_connection_is_reported_at_once(
    name: str, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_api

    monkeypatch.setattr(hf_api.api, "endpoint", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(hfclip.NetworkError) as caught:
        load(name)
    assert time.monotonic() - began < 2
    assert "cannot be fetched: the connection to http://127.0.0.1:9 failed" in str(caught.value)


@pytest.mark.usefixtures("impatient")
def test_a_slow_download_is_waited_for(hub: LoopbackHub) -> None:
    hub.fault(Slow(seconds=2.5), WEIGHTS)
    assert load()


def test_files_with_wrong_bytes_are_removed_from_the_cache(hub: LoopbackHub, cache: Path) -> None:
    hub.fault(Corrupt(), WEIGHTS, times=None)
    with pytest.raises(hfclip.IntegrityError):
        load()
    assert list(cache.glob(f"snapshots/*/{WEIGHTS}")) == []
    assert not any(len(path.name) == 64 for path in cache.glob("blobs/*"))


# Missing, private and gated repositories.


def assert_is_clear(error: Exception) -> None:
    """Checks that the error names cause and remedy, without a token or the client's exception."""
    assert "me/" in str(error)
    assert str(error).rstrip().endswith(".")
    assert TOKEN not in str(error)
    assert error.__suppress_context__ or error.__context__ is None
    assert error.__cause__ is None


def test_a_missing_repository_is_reported(hub: LoopbackHub) -> None:
    with pytest.raises(hfclip.RepositoryError, match="does not exist or is private") as caught:
        load("me/nothing")
    assert_is_clear(caught.value)


def test_only_its_owner_can_load_a_private_repository(hub: LoopbackHub, folder: Path) -> None:
    files = {name: folder / name for name in (CONFIG, WEIGHTS)}
    hub.add_repository("me/private", files, private=True)
    for token in (None, False):
        with pytest.raises(hfclip.RepositoryError, match="private"):
            load("me/private", token=token)
    assert load("me/private", token=TOKEN)


def test_an_error_for_a_gated_repository_says_how_to_get_access(
    hub: LoopbackHub, folder: Path
) -> None:
    files = {name: folder / name for name in (CONFIG, WEIGHTS)}
    hub.add_repository("me/gated", files, gated=True)
    hub.add_account("stranger", "hf_stranger")
    with pytest.raises(hfclip.RepositoryError, match="is gated: request access") as caught:
        load("me/gated", token="hf_stranger")
    assert_is_clear(caught.value)
    hub.grant_access("me/gated", "stranger")
    assert load("me/gated", token="hf_stranger")


def test_an_unknown_token_is_named_as_the_cause(hub: LoopbackHub) -> None:
    with pytest.raises(hfclip.RepositoryError, match="does not know your token") as caught:
        load(token="hf_unknownSecret")
    assert "hf_unknownSecret" not in str(caught.value)
    assert_is_clear(caught.value)


def test_a_missing_revision_is_reported(hub: LoopbackHub) -> None:
    with pytest.raises(hfclip.RepositoryError, match="no such branch, tag or commit"):
        load(revision="v9")
    with pytest.raises(hfclip.RepositoryError):
        load(revision="0" * 40)


def test_a_token_is_sent_only_to_the_hub(
    hub: LoopbackHub, log: Log, capfd: pytest.CaptureFixture[str]
) -> None:
    with log.at_level(logging.DEBUG):
        assert load(token=TOKEN)
    authorized = {call.server for call in hub.calls if call.authorization}
    assert authorized == {"hub"}
    output = capfd.readouterr()
    assert TOKEN not in log.text + output.out + output.err
    assert TOKEN not in repr(Access(token=TOKEN))


def test_pickles_with_other_names_are_not_fetched(hub: LoopbackHub) -> None:
    hub.add_repository("me/old", {CONFIG: b"{}", "ViT-B-32.pt": b"x", "epoch_3.bin": b"x"})
    with pytest.raises(hfclip.RepositoryError, match=r"torch\.save ViT-B-32\.pt, epoch_3\.bin"):
        load("me/old")
    assert not any(call.file and call.file.endswith((".pt", ".bin")) for call in hub.calls)


def test_an_error_for_a_repository_without_a_clip_lists_its_content(hub: LoopbackHub) -> None:
    hub.add_repository("me/other", {"README.md": b"hello", "tokenizer.json": b"{}"})
    with pytest.raises(hfclip.RepositoryError, match=r"It holds README\.md, tokenizer\.json"):
        load("me/other")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk with the given options, or skips the test without permission."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def do(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("no right to mount")
        return disk

    yield do
    subprocess.run(["umount", str(disk)], check=False, capture_output=True)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_full_disk_is_reported_and_leaves_no_files(
    hub: LoopbackHub, mount: Callable[[str], Path]
) -> None:
    disk = mount("size=64k")
    with pytest.raises(hfclip.CacheError, match="No space left"):
        load(cache_dir=disk)
    assert leftovers(disk) == []


def test_a_read_only_cache_is_reported(hub: LoopbackHub, mount: Callable[[str], Path]) -> None:
    with pytest.raises(hfclip.CacheError, match="Read-only file system"):
        load(cache_dir=mount("ro"))


def test_a_cache_that_cannot_be_written_is_reported(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(hfclip.CacheError, match="set HF_HOME to another folder"):
        load(cache_dir=tmp_path / "file" / "cache")


# Xet: blobs that repositories share.


def test_a_flipped_bit_in_a_shared_xet_object_is_fetched_again(
    hub: LoopbackHub, home: Path, cache: Path, folder: Path, python: Path
) -> None:
    hub.add_repository("me/clip", {name: folder / name for name in (CONFIG, WEIGHTS)}, xet=True)
    environment = {**hub.environment(home, xet=True), "OMP_NUM_THREADS": "1"}

    def load_in_a_child() -> str:
        command = [str(python), "-c", CHILD, "me/clip"]
        result = subprocess.run(
            command, env=environment, check=False, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    assert load_in_a_child() == content_hash()
    (link,) = cache.glob(f"snapshots/*/{WEIGHTS}")
    shared = link.resolve()
    assert cache not in shared.parents, "the blob is a link into a store of its own"
    flip_a_bit(shared)
    assert load_in_a_child() == content_hash()
    assert load_in_a_child() == content_hash()


# Several processes, and killed processes.


# Shells start background jobs, possibly these tests too, with SIGINT ignored.
CHILD = """
import hashlib, signal, sys, hfclip
signal.signal(signal.SIGINT, signal.default_int_handler)
model, _ = hfclip.load(sys.argv[1], "cpu")
state = model.state_dict()
print(hashlib.sha256(b"".join(t.numpy().tobytes() for t in state.values())).hexdigest())
"""

# A child that is killed while it downloads.
DOWNLOADER = """
import sys, hfclip
hfclip.download(sys.argv[1])
"""


def leftovers(cache: Path) -> list[str]:
    """Returns the files that interrupted downloads left in the cache."""
    return [p.name for p in cache.rglob("*") if p.suffix in {".incomplete", ".part"}]


def content_hash() -> str:
    tensors = MODEL.state_dict().values()
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


@pytest.fixture
def spawn(hub: LoopbackHub, home: Path, python: Path) -> Callable[..., subprocess.Popen[str]]:
    environment = {**hub.environment(home), "OMP_NUM_THREADS": "1"}

    def start(program: str = CHILD) -> subprocess.Popen[str]:
        command = [str(python), "-c", program, "me/clip"]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def test_eight_processes_make_one_download(
    hub: LoopbackHub, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    hub.fault(Slow(seconds=2), WEIGHTS)
    children = [spawn() for _ in range(8)]
    outputs = [child.communicate(timeout=120) for child in children]
    assert [out.strip() for out, _ in outputs] == [content_hash()] * 8, outputs[0][1]
    assert sum(call.server == "cdn" for call in hub.calls) == 1


def test_a_load_after_a_killed_download_is_correct_at_twenty_moments(
    hub: LoopbackHub, spawn: Callable[..., subprocess.Popen[str]], cache: Path
) -> None:
    size = hub.repository("me/clip").branches["main"].files[WEIGHTS].size
    for moment in range(20):
        shutil.rmtree(cache, ignore_errors=True)
        hub.forget_faults()
        order = hub.fault(Hang(after=size * moment // 20), WEIGHTS)
        child = spawn(DOWNLOADER)
        deadline = time.monotonic() + 60
        while not order.struck and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.01)
        time.sleep(0.02)
        child.kill()
        child.communicate()  # the streams close when the program has ended too
        assert order.struck == 1
        hub.forget_faults()
        assert load()
        assert leftovers(cache) == [], moment


def test_an_interrupt_by_the_user_leaves_no_partial_files(
    hub: LoopbackHub, spawn: Callable[..., subprocess.Popen[str]], cache: Path
) -> None:
    import signal

    order = hub.fault(Slow(seconds=30), WEIGHTS)
    child = spawn()
    while not order.struck and child.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert leftovers(cache) == []
    assert list(cache.glob(f"snapshots/*/{WEIGHTS}")) == []


# The nine releases.


@pytest.fixture
def pinned(
    hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., releases.Release]:
    """Returns a function that puts a pinned replacement for ViT-B/32 on the loopback Hub."""

    def publish(*, known: bool = True) -> releases.Release:
        config = b'{"architecture": "vit", "pretrained_cfg": {}}'  # timm's; must not be read
        weights = (folder / WEIGHTS).read_bytes()
        files = {
            "open_clip_config.json": b"{}",
            "open_clip_model.safetensors": weights,
            CONFIG: config,
            WEIGHTS: b"the image tower alone",
        }
        real = releases.RELEASES["ViT-B/32"]
        commit = hub.add_repository(real.hub.repo_id, files)
        digest = hashlib.sha256(weights).hexdigest()
        original = b"stand-in for OpenAI's file"
        release = dataclasses.replace(
            real,
            config=TINY_VIT,
            hub=dataclasses.replace(
                real.hub,
                revision=commit if known else None,
                size=len(weights) if known else None,
                sha256=digest if known else None,
            ),
            original=releases.Original(
                real.original.file, len(original), hashlib.sha256(original).hexdigest()
            ),
        )
        monkeypatch.setitem(releases.RELEASES, "ViT-B/32", release)
        return release

    return publish


@pytest.mark.parametrize("known", [True, False])
def test_a_release_loads_from_its_repository(
    known: bool, hub: LoopbackHub, pinned: Callable[..., releases.Release]
) -> None:
    pinned(known=known)
    assert load("ViT-B/32")
    assert load("ViT-B/32", local_files_only=True)


def test_a_pinned_release_loads_again_without_any_request(
    hub: LoopbackHub,
    pinned: Callable[..., releases.Release],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned()
    assert load("ViT-B/32")
    hub.forget_calls()
    monkeypatch.setattr(integrity, "compute", None)
    assert load("ViT-B/32")
    assert hub.calls == []


def test_a_repository_with_other_bytes_than_pinned_is_refused(
    hub: LoopbackHub, pinned: Callable[..., releases.Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = pinned()
    wrong = dataclasses.replace(release.hub, sha256="0" * 64)
    monkeypatch.setitem(releases.RELEASES, "ViT-B/32", dataclasses.replace(release, hub=wrong))
    with pytest.raises(hfclip.IntegrityError, match="publishes 0000"):
        load("ViT-B/32")


def test_a_pinned_hash_is_checked_unless_a_revision_is_given(
    hub: LoopbackHub, pinned: Callable[..., releases.Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = pinned()
    right = dataclasses.replace(release.hub, revision=None)
    monkeypatch.setitem(releases.RELEASES, "ViT-B/32", dataclasses.replace(release, hub=right))
    assert load("ViT-B/32")
    assert load("ViT-B/32", local_files_only=True)
    wrong = dataclasses.replace(right, sha256="0" * 64)
    monkeypatch.setitem(releases.RELEASES, "ViT-B/32", dataclasses.replace(release, hub=wrong))
    assert load("ViT-B/32", revision="main")
    with pytest.raises(hfclip.IntegrityError, match="0000"):
        load("ViT-B/32")


def test_a_namespace_loads_its_own_copies(
    hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: folder / name for name in (CONFIG, WEIGHTS)}
    hub.add_repository("me/ViT-L-14-336px", files)
    assert load("ViT-L/14@336px", namespace="me")
    monkeypatch.setenv("HFCLIP_NAMESPACE", "me")
    assert load("ViT-L/14@336px")
    with pytest.raises(hfclip.RepositoryError, match="me/RN50 does not exist"):
        load("RN50")


def test_openais_original_file_is_used_instead_of_a_download(
    hub: LoopbackHub,
    home: Path,
    folder: Path,
    pinned: Callable[..., releases.Release],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    release = pinned()
    content = (folder / WEIGHTS).read_bytes()
    original = releases.Original("ViT-B-32.pt", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(
        releases.RELEASES, "ViT-B/32", dataclasses.replace(release, original=original)
    )
    for root, options in (
        (home / ".cache" / "clip", {}),
        (tmp_path / "models", {"download_root": tmp_path / "models"}),
    ):
        root.mkdir(parents=True)
        (root / original.file).write_bytes(content)
        assert load("ViT-B/32", **options)
        assert hub.calls == []
        flip_a_bit(root / original.file)
        shutil.rmtree(root)


def test_an_original_with_the_right_size_and_wrong_bytes_is_not_used(
    hub: LoopbackHub, home: Path, pinned: Callable[..., releases.Release]
) -> None:
    release = pinned()
    root = home / ".cache" / "clip"
    root.mkdir(parents=True)
    (root / release.original.file).write_bytes(b"x" * release.original.size)
    assert load("ViT-B/32")
    assert ("GET", "open_clip_model.safetensors") in requests(hub)


def test_an_error_for_a_misspelt_release_suggests_the_correct_name(hub: LoopbackHub) -> None:
    with pytest.raises(hfclip.RepositoryError, match="Did you mean 'ViT-B/32'"):
        load("ViT-B/23")


def test_the_sizes_of_the_published_files_match_the_release_table() -> None:
    for name, release in releases.RELEASES.items():
        if release.hub.size is None:
            continue
        with NoInitialization(), torch.device("meta"):
            state = hfclip.CLIP(**release.config.to_dict()).state_dict()
        tensors = sum(tensor.nbytes for tensor in state.values())
        header = release.hub.size - tensors
        # A safetensors header has one entry per tensor: name, dtype, shape and offsets.
        assert 80 * len(state) < header < 150 * len(state), name


def test_the_sizes_of_openais_archives_match_the_release_table() -> None:
    for name, release in releases.RELEASES.items():
        with NoInitialization(), torch.device("meta"):
            model = hfclip.CLIP(**release.config.to_dict())
        convert_weights(model)
        state = model.state_dict()
        beside = release.original.size - sum(tensor.nbytes for tensor in state.values())
        # Overhead of each tensor: its zip entry, padding, and the code of its module.
        assert 1000 * len(state) < beside < 2000 * len(state), name


def cut_down(config: ClipConfig) -> ClipConfig:
    """Returns a configuration with the same widths, one block per stack and few tokens."""
    layers = (1, 1, 1, 1) if config.is_resnet else 1
    return dataclasses.replace(
        config, vision_layers=layers, transformer_layers=1, vocab_size=600, image_resolution=64
    )


@pytest.mark.parametrize("name", releases.RELEASES)
def test_each_release_name_loads_its_architecture(
    name: str, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = releases.RELEASES[name]
    config = cut_down(real.config)
    with NoInitialization(), torch.device("meta"):
        shapes = hfclip.CLIP(**config.to_dict()).state_dict()
    half = {
        key: torch.zeros(
            like.shape, dtype=torch.float16 if like.is_floating_point() else like.dtype
        )
        for key, like in shapes.items()
    }
    save_file(half, tmp_path / real.hub.file)
    commit = hub.add_repository(real.hub.repo_id, {real.hub.file: tmp_path / real.hub.file})
    file = dataclasses.replace(real.hub, revision=commit, sha256=None, size=None)
    release = dataclasses.replace(real, config=config, hub=file)
    monkeypatch.setitem(releases.RELEASES, name, release)
    model, preprocess = hfclip.load(name, "cpu")
    assert model.config == config
    assert model.text_projection.shape == (real.config.transformer_width, real.config.embed_dim)
    assert model.visual.conv1.weight.shape[0] == real.config.vision_width // (
        2 if real.config.is_resnet else 1
    )
    assert preprocess.transforms[1].size == (64, 64)


# The command line.


def test_download_verify_and_models_report_the_content_of_the_cache(
    hub: LoopbackHub, pinned: Callable[..., releases.Release], cache: Path
) -> None:
    import json

    from click.testing import CliRunner

    from hfclip.cli import main

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, arguments)
        return result.exit_code, result.output

    def state() -> str:
        rows = json.loads(run("models", "--json")[1])
        return next(str(row["state"]) for row in rows if row["name"] == "ViT-B/32")

    release = pinned()
    assert state() == "not cached"
    status, output = run("verify", "ViT-B/32")
    assert status == 1
    assert "not in the cache" in output
    assert run("download", "ViT-B/32")[0] == 0
    assert state() == "verified"
    status, output = run("verify", "ViT-B/32")
    assert status == 0
    assert f"sha256 {release.hub.sha256}" in output
    path = hfclip_hub.cached(
        release.hub.repo_id, release.hub.file, str(release.hub.revision), Access()
    )
    assert path is not None
    flip_a_bit(path.resolve())
    assert state() == "cached"
    assert run("verify", "ViT-B/32")[0] == 1
    assert run("verify", "ViT-B/32", "--repair")[0] == 0
    assert state() == "verified"
