"""The page's server under many requests and under hostile ones."""

import http.client
import json
import os
import re
import socket
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from served import Page, file_at, result, served

from hfclip.releases import bundled_folder

SEVEN = bundled_folder("digits") / "seven.png"
TEMPLATE = "a handwritten {}"
HTML = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Serves the collection. The model is loaded, so that its memory is no test's."""
    with served(tmp_path_factory.mktemp("page"), ["--embeddings", str(collection)]) as page:
        result(page.call("classify", page.upload(SEVEN)[0], "a", TEMPLATE))
        yield page


def labels_of(event: str) -> list[str]:
    """Returns the labels of an answer of `classify`."""
    bars = result(event)[0]
    return [one["label"] for one in bars["confidences"]]  # type: ignore[index]


def test_fifty_requests_at_once_are_answered_with_the_memory_of_one(page: Page) -> None:
    sent = page.upload(SEVEN)[0]
    words = "zero\none\ntwo\nseven"
    assert labels_of(page.call("classify", sent, words, TEMPLATE))[0] == "seven"
    before = page.memory
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: page.call("classify", sent, words, TEMPLATE), range(50)))
    assert [labels_of(answer)[0] for answer in answers] == ["seven"] * 50
    assert page.memory <= 1.1 * before


def test_requests_beyond_the_queue_are_refused(
    collection: Path, tmp_path: Path, python: Path
) -> None:
    arguments = ["--embeddings", str(collection), "--queue", "2"]
    with served(tmp_path, arguments, python) as page:
        sent = page.upload(SEVEN)[0]
        slow = [sent, "\n".join(map(str, range(900))), "a {}\nb {}\nc {}\nd {}"]
        statuses = []
        for _ in range(20):
            begun = page.client.post(
                f"{page.address}/gradio_api/call/classify", json={"data": slow}
            )
            statuses.append(begun.status_code)
        assert statuses[:2] == [200, 200]
        assert 503 in statuses
        assert set(statuses) == {200, 503}


def png_of(width: int, height: int) -> bytes:
    """Returns a PNG that says it has this size, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


def hostile_paths(collection: Path) -> list[str]:
    """Returns paths of files that the page must not read."""
    wanted = ["/etc/passwd", str(collection / "manifest.json"), "/proc/self/environ", __file__]
    forms = ["{}", "file://{}", "../../../../../..{}", "/usr/..{}", "{}\x00.png", "//{}"]
    return [form.format(path) for path in wanted for form in forms]


def test_files_are_named_by_uploads_and_never_by_paths(page: Page, collection: Path) -> None:
    for path in hostile_paths(collection):
        for request in (file_at(path), file_at(path, url=path), file_at(path, is_stream=True)):
            answer = page.call("classify", request, "a\nb", TEMPLATE)
            assert answer.startswith("error"), (path, answer)
        answer = page.call("classify_all", [file_at(path)], "a\nb", TEMPLATE)
        assert answer.startswith("error"), (path, answer)


def test_the_server_fetches_no_address(page: Page) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        port = trap.getsockname()[1]
        addresses = [
            f"http://127.0.0.1:{port}/a.png",
            f"http://localhost:{port}/a.png",
            f"https://127.0.0.1:{port}/a.png",
            "http://169.254.169.254/latest/meta-data",
            "https://example.com/a.png",
        ]
        for address in addresses:
            for name in ("classify", "compare"):
                request = file_at(address, url=address)
                data = [request, "a", TEMPLATE] if name == "classify" else [[request], "a"]
                answer = page.call(name, *data)
                assert answer.startswith("error"), answer
        trap.settimeout(0.2)
        with pytest.raises(TimeoutError):
            trap.accept()
    assert [one for one in page.addresses if "127.0.0.1" not in one] == []


def test_no_path_of_the_machine_is_served(page: Page, collection: Path) -> None:
    secrets = ["root:", "config_digest", "def test_"]
    for path in hostile_paths(collection):
        shown = quote(path, safe="")
        for address in (
            f"/gradio_api/file={shown}",
            f"/gradio_api/file={path.replace(chr(0), '%00')}",
            f"/gradio_api/file/{shown}",
            f"/gradio_api/proxy={shown}",
            f"/static/{shown}",
            f"/assets/{shown}",
            f"/pictures?key={shown}",
            f"/pictures/{shown}",
        ):
            answer = page.client.get(f"{page.address}{address}")
            assert answer.status_code in (200, 400, 403, 404, 405, 422), (
                address,
                answer.status_code,
            )
            assert not any(secret in answer.text for secret in secrets), address


def test_pictures_are_served_by_key_with_their_own_kind(page: Page, collection: Path) -> None:
    answer = page.client.get(f"{page.address}/pictures", params={"key": "digits/00-zero.png"})
    assert answer.content == (collection.parent / "digits/00-zero.png").read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''00-zero.png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    for key in ("digits/./00-zero.png", "digits//00-zero.png", "digits/none.png", ""):
        answer = page.client.get(f"{page.address}/pictures", params={"key": key})
        assert (answer.status_code, answer.text) == (
            404,
            "The collection has no picture with this key.",
        )
    assert page.client.get(f"{page.address}/pictures").status_code == 400


def test_a_file_that_is_no_longer_a_picture_is_not_served(page: Page, collection: Path) -> None:
    path = next((collection.parent / "digits").glob("50-*.png"))
    content = path.read_bytes()
    path.unlink()
    path.symlink_to("/etc/passwd")
    try:
        answer = page.client.get(f"{page.address}/pictures", params={"key": f"digits/{path.name}"})
    finally:
        path.unlink()
        path.write_bytes(content)
    assert answer.status_code == 404
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_of(30_000, 30_000), "too large to decode|pixels are too many"),
        (png_of(9_000, 9_000), "9,000 x 9,000 pixels are too many; this page takes 50 million"),
        (png_of(1, 40_000_000), "narrow|too large to decode|too many"),
        (png_of(100, 100), "cannot be decoded"),
        (b"", "not a picture|cannot be|no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "not a pict"),
        (b"GIF89a" + b"\xff" * 100, "cannot be decoded|not a picture"),
        (b"II*\0" + b"\xff" * 100, "cannot be decoded|not a picture"),
        (b"\xff\xd8\xff\xe0" + os.urandom(500), "cannot be decoded|not a picture"),
    ],
    ids=["bomb", "large", "narrow", "cut", "empty", "svg", "gif", "tiff", "jpeg"],
)
def test_hostile_pictures_are_refused_in_words(
    content: bytes, reason: str, page: Page, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    before = page.memory
    sent = page.upload(tmp_path / "a.png")[0]
    for answer in (
        page.call("classify", sent, "a\nb", TEMPLATE),
        page.call("search", "", sent, ""),
        page.call("compare", [sent], "a\nb"),
    ):
        assert answer.startswith("error"), answer
        message = json.loads(answer.partition("data: ")[2])
        assert re.search(reason, str(message)), message
        assert "Traceback" not in str(message)
        assert str(tmp_path.parents[-2]) not in str(message)
    assert page.memory < before + 2**27


@pytest.mark.parametrize(
    ("labels", "templates", "reason"),
    [
        ("x" * 2**19, TEMPLATE, "524,288 characters; this page takes"),
        ("\n".join(map(str, range(2_000))), TEMPLATE, "2,000 labels are too many"),
        ("a\nb", "{}" * 251, "A template has 502 characters"),
        ("\n".join(map(str, range(900))), "\n".join(f"{n} {{}}" for n in range(9)), "8,100 capt"),
        ("a " * 200, TEMPLATE, "too long for context length"),
        (HTML * 20, TEMPLATE, "&lt;script&gt;"),
        (None, TEMPLATE, "There is no label"),
        ("a", None, "There is no template"),
        ([["a"]], {"b": 1}, "has no {}"),
        (5, 6, "has no {}"),
        ("\x00\ud83d", "{}", "complete"),
    ],
)
def test_hostile_texts_are_refused_in_words_or_shown_as_text(
    labels: object, templates: object, reason: str, page: Page
) -> None:
    sent = page.upload(SEVEN)[0]
    answer = page.call("classify", sent, labels, templates)
    assert reason in answer or answer.startswith("complete"), answer
    assert "Traceback" not in answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"data": 5}',
        b'{"data": [1, 2, 3, 4, 5, 6, 7, 8, 9]}',
        b'{"data": [{"path": 5, "meta": {"_type": "gradio.FileData"}}, "a", "{}"]}',
        b'{"data": [{"meta": {"_type": "gradio.FileData"}}, "a", "{}"]}',
        b'{"data": [{"url": "data:image/png;base64,AA", "meta": {"_type": "gradio.FileData"}}, 1]}',
        b'{"fn_index": 99, "data": [], "session_hash": "x"}',
        b'{"data": [], "event_data": {"index": -1}}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("place", ["call/classify", "queue/join", "run/classify", "call/nothing"])
def test_malformed_requests_do_not_end_the_server(place: str, body: bytes, page: Page) -> None:
    answer = page.client.post(
        f"{page.address}/gradio_api/{place}",
        content=body,
        headers={"content-type": "application/json"},
        timeout=30,
    )
    assert "Traceback" not in answer.text
    assert page.client.get(f"{page.address}/config").status_code == 200


def test_large_requests_are_refused_before_they_are_read(page: Page) -> None:
    host, port = page.address.removeprefix("http://").split(":")
    for declared in ("99999999999", "-1", "1e9"):
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.putrequest("POST", "/gradio_api/call/classify")
        connection.putheader("content-length", declared)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status in (400, 413), declared
        connection.close()

    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield b'"' + b"x" * 2**16

    sent = page.client.post(
        f"{page.address}/gradio_api/call/classify", content=chunks(), timeout=30
    )
    assert (sent.status_code, sent.text) == (
        413,
        "The request is too large; this page takes 1,048,576 bytes.",
    )


def test_a_file_above_the_limit_is_refused(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(b"\0" * (20 * 2**20 + 1))
    with pytest.raises(httpx.HTTPStatusError, match="413"):
        page.upload(tmp_path / "large.png")


def test_the_page_answers_under_the_names_of_this_machine_only(page: Page) -> None:
    for host, status in {"evil.example": 403, "127.0.0.1:1": 200, "localhost:7860": 200}.items():
        answer = page.client.get(f"{page.address}/config", headers={"host": host})
        assert answer.status_code == status, host
    answer = page.client.get(f"{page.address}/config", headers={"host": "evil.example"})
    assert answer.text == (
        "This page answers to this machine only. Start it with --host evil.example."
    )


@pytest.mark.parametrize("path", ["/monitoring", "/monitoring/summary", "/gradio_api/deep_link"])
def test_parts_of_gradio_that_the_page_does_not_use_are_closed(path: str, page: Page) -> None:
    assert page.client.get(f"{page.address}{path}").status_code == 404


def test_every_answer_forbids_other_hosts(page: Page) -> None:
    for path in ("/", "/config", "/pictures?key=none"):
        policy = page.client.get(f"{page.address}{path}").headers["content-security-policy"]
        assert policy.startswith("default-src 'self' data: blob:;")


def test_the_server_has_asked_no_other_host(page: Page) -> None:
    page.call("classify", page.upload(SEVEN)[0], "a", TEMPLATE)
    assert page.addresses
    assert [one for one in page.addresses if "127.0.0.1" not in one] == []
