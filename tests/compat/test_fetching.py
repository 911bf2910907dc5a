"""`_download` verifies files, writes them only when complete, and resumes downloads."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from loopback.faults import CutError
from loopback.messages import Reply, Request
from loopback.server import LoopbackServer

from hfclip.compat import fetching
from hfclip.errors import CacheError, IntegrityError, NetworkError

CONTENT = bytes(range(256)) * 20_000  # 5 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Origin:
    """A server of one file that logs requests and applies a fault to the first requests."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.knows_ranges = True
        self.faults: list[int | None] = []  # an HTTP status, or None to cut the body in half
        self.ranges: list[str | None] = []
        self.server = LoopbackServer(self.answer)

    def url(self, sha256: str = SHA256, name: str = "model.pt") -> str:
        return f"{self.server.url}/clip/models/{sha256}/{name}"

    def answer(self, request: Request) -> Reply:
        wanted = request.headers.get("range")
        self.ranges.append(wanted)
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "") if self.knows_ranges else None
        start = int(match[1]) if match else 0
        if start >= len(self.content):
            return Reply(416)
        body = self.content[start:]
        fault = self.faults.pop(0) if self.faults else 200
        if fault is None:
            return Reply(206 if match else 200, {}, len(body), half_of(body))
        if fault >= 400:
            return Reply(fault)
        return Reply(206 if match else 200, {}, len(body), (body,))


def half_of(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    raise CutError(reset=False)


@pytest.fixture
def origin() -> Iterator[Origin]:
    origin = Origin()
    with origin.server:
        yield origin


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(fetching, "_PAUSE", 0.0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hf"))
    return tmp_path


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_once_and_its_path_returned(
    standin: ModuleType, origin: Origin, tmp_path: Path
) -> None:
    path = standin.clip._download(origin.url(), str(tmp_path / "a" / "b"))
    assert path == str(tmp_path / "a" / "b" / "model.pt")
    assert Path(path).read_bytes() == CONTENT
    assert standin.clip._download(origin.url(), str(tmp_path / "a" / "b")) == path
    assert origin.ranges == [None]
    assert leftovers(tmp_path / "a" / "b") == ["model.pt"]


def test_the_default_root_is_the_folder_of_clip(
    standin: ModuleType, origin: Origin, home: Path
) -> None:
    assert standin.clip._download(origin.url()) == str(home / ".cache" / "clip" / "model.pt")


def test_a_broken_connection_is_resumed(origin: Origin, tmp_path: Path) -> None:
    origin.faults = [None, 503, None]
    path = fetching.fetch(origin.url(), tmp_path / "root")
    assert path.read_bytes() == CONTENT
    half, rest = len(CONTENT) // 2, len(CONTENT) // 4
    assert origin.ranges == [None, *[f"bytes={half}-"] * 2, f"bytes={half + rest}-"]


def test_the_partial_file_of_a_killed_process_is_resumed(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / f"model.pt.{SHA256[:16]}.part").write_bytes(CONTENT[:1_000_000])
    assert fetching.fetch(origin.url(), tmp_path).read_bytes() == CONTENT
    assert origin.ranges == ["bytes=1000000-"]


@pytest.mark.parametrize("size", [1_000, len(CONTENT), len(CONTENT) + 5])
def test_a_partial_file_with_wrong_bytes_is_discarded(
    origin: Origin, tmp_path: Path, size: int
) -> None:
    (tmp_path / f"model.pt.{SHA256[:16]}.part").write_bytes(b"x" * size)
    assert fetching.fetch(origin.url(), tmp_path).read_bytes() == CONTENT
    assert origin.ranges == [f"bytes={size}-", None]
    assert leftovers(tmp_path) == ["hf", "model.pt"] or leftovers(tmp_path) == ["model.pt"]


def test_a_server_without_range_support_sends_the_whole_file_again(
    origin: Origin, tmp_path: Path
) -> None:
    origin.knows_ranges, origin.faults = False, [None]
    assert fetching.fetch(origin.url(), tmp_path).read_bytes() == CONTENT
    assert len(origin.ranges) == 2


def test_a_file_with_wrong_bytes_never_gets_its_name(origin: Origin, tmp_path: Path) -> None:
    origin.content = CONTENT[:-1] + b"?"
    with pytest.raises(IntegrityError, match=f"URL says {SHA256}"):
        fetching.fetch(origin.url(), tmp_path / "root")
    assert leftovers(tmp_path / "root") == []


def test_a_damaged_file_is_fetched_again_with_a_warning(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(CONTENT[:-1] + b"?")
    with pytest.warns(UserWarning, match="sha256 is not"):
        path = fetching.fetch(origin.url(), tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_client_error_is_not_retried(origin: Origin, tmp_path: Path) -> None:
    origin.faults = [404]
    with pytest.raises(NetworkError, match=r"model\.pt cannot be downloaded.*Not Found"):
        fetching.fetch(origin.url(), tmp_path)
    assert len(origin.ranges) == 1


def test_an_unavailable_server_is_given_up_after_five_requests(
    origin: Origin, tmp_path: Path
) -> None:
    origin.faults = [503] * 9
    with pytest.raises(NetworkError, match=r"hfclip\.load, which gets the same weights"):
        fetching.fetch(origin.url(), tmp_path)
    assert len(origin.ranges) == 5


def test_a_refused_connection_raises_a_network_error(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="cannot be downloaded"):
        fetching.fetch(f"http://127.0.0.1:9/{SHA256}/model.pt", tmp_path)


@pytest.mark.parametrize("part", ["main", SHA256[:63], "g" * 64])
def test_a_url_without_a_hash_is_refused_without_a_request(
    origin: Origin, tmp_path: Path, part: str
) -> None:
    with pytest.raises(IntegrityError, match="does not contain a sha256"):
        fetching.fetch(origin.url(part), tmp_path)
    assert origin.ranges == []


def test_a_folder_in_place_of_the_file_is_not_touched(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "model.pt").mkdir()
    with pytest.raises(CacheError, match="not a regular file"):
        fetching.fetch(origin.url(), tmp_path)


def test_a_folder_that_cannot_be_created_is_named(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"model\.pt cannot be written"):
        fetching.fetch(origin.url(), tmp_path / "file")


def test_a_file_url_needs_no_server(tmp_path: Path) -> None:
    source = tmp_path / SHA256 / "model.pt"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    assert fetching.fetch(source.as_uri(), tmp_path / "root").read_bytes() == CONTENT


def test_load_fetches_from_an_edited_url_in_the_table_of_models(
    standin: ModuleType,
    origin: Origin,
    weights: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = Path(weights("vit"))  # type: ignore[operator]
    origin.content = file.read_bytes()
    url = origin.url(hashlib.sha256(origin.content).hexdigest(), "mine.pt")
    monkeypatch.setitem(standin.clip._MODELS, "ViT-B/32", url)
    model, _ = standin.load("ViT-B/32", device="cpu", download_root=str(tmp_path / "root"))
    state = torch.load(file)
    assert torch.equal(model.positional_embedding.data, state["positional_embedding"])
    monkeypatch.setattr(standin.clip, "_MODELS", {"Mine": url})
    standin.load("Mine", device="cpu", download_root=str(tmp_path / "root"))
    assert standin.available_models() == ["Mine"]
    assert len(origin.ranges) == 1
