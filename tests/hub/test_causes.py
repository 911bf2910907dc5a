"""Errors of the network and its settings name the true cause, for downloads and uploads."""

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import TINY_VIT, draw
from huggingface_hub import close_session, constants, hf_api
from logged import Log
from loopback.faults import Status
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

import hfclip
from hfclip.cli import main
from hfclip.hub import push as pushing
from hfclip.hub.fetch import Access
from hfclip.sources.find import find

TOKEN = "hf_secretOfTheTests"
PASSWORD = "secretOfTheProxy"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    draw(TINY_VIT).save_pretrained(tmp_path / "model")
    close_session()
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.add_account("me", TOKEN)
        names = ("config.json", "model.safetensors")
        hub.add_repository("me/clip", {name: tmp_path / "model" / name for name in names})
        yield hub
    close_session()


def messages() -> list[str]:
    """Returns the errors of a download and an upload, in Python and on the command line."""
    texts = []
    for act in (lambda: find("me/clip"), lambda: pushing.find_repository("me/clip")):
        with pytest.raises(hfclip.HubError) as caught:
            act()
        assert caught.value.__cause__ is None
        texts.append(str(caught.value))
    for arguments in (["download", "me/clip"], ["publish", "digits", "me/clip"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit), "a traceback"
        texts.append(result.stderr)
    for text in texts:
        assert TOKEN not in text
        assert PASSWORD not in text
        assert "Did you mean" not in text
        assert "There is no file or folder" not in text
    return texts


def assert_all_say(*words: str) -> None:
    for text in messages():
        for word in words:
            assert word in text


SETTINGS = {
    "a SOCKS proxy": (
        {"ALL_PROXY": f"socks5://me:{PASSWORD}@127.0.0.1:9"},
        "ALL_PROXY names a SOCKS proxy, which needs the package socksio",
    ),
    "a proxy of another kind": (
        {"ALL_PROXY": f"gopher://me:{PASSWORD}@127.0.0.1:9"},
        "ALL_PROXY is not the URL of a proxy",
    ),
    "a proxy's port that is no number": (
        {"HTTP_PROXY": "http://127.0.0.1:port"},
        "HTTP_PROXY is not the URL of a proxy",
    ),
    "a proxy that is down": (
        {"HTTP_PROXY": f"http://me:{PASSWORD}@127.0.0.1:9"},
        "Connection refused). Check the network and the proxy in HTTP_PROXY",
    ),
    "certificates that are not there": (
        {"SSL_CERT_FILE": "/nowhere/ca.pem"},
        "SSL_CERT_FILE names /nowhere/ca.pem, which cannot be read (No such file or directory)",
    ),
    "certificates that are none": (
        {"SSL_CERT_FILE": __file__},
        f"SSL_CERT_FILE names {__file__}, which holds no certificate",
    ),
    "a token of other letters": ({"HF_TOKEN": "hf_\u00e4"}, "another character that no token has"),
    "a token of two lines": (
        {"HF_TOKEN": "hf_two\nlines"},
        "know your token. Run `hf auth login` or set HF_TOKEN. HF_TOKEN holds a line break",
    ),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_wrong_setting_is_named(
    kind: str, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, words = SETTINGS[kind]
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert_all_say(words)


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:80", "huggingface.co", "ftp://huggingface.co", "", "https:", "http://hub:port"],
)
def test_an_invalid_endpoint_is_named(
    endpoint: str, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
    assert_all_say(f"HF_ENDPOINT is {endpoint!r}, which is not a URL")


@pytest.mark.parametrize("token", ["", " ", "hf_a\n", "hf_a\nb", "hf_a ", "hf_\u00e4"])
def test_a_token_that_is_invalid_in_a_header_is_named_and_not_shown(
    token: str, hub: LoopbackHub
) -> None:
    for act in (
        lambda: find("me/clip", Access(token=token)),
        lambda: pushing.find_repository("me/clip", token=token),
    ):
        with pytest.raises(hfclip.RepositoryError, match="the Hub token is empty, or") as caught:
            act()
        assert "hf_" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert hub.calls == []


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_empty_token_is_named_if_one_is_needed(
    value: str, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", value)
    hub.add_repository("me/private", {"config.json": b"{}"}, private=True)
    note = "HF_TOKEN is set but empty, so no token was sent"
    with pytest.raises(hfclip.RepositoryError, match=note):
        find("me/private")
    with pytest.raises(hfclip.RepositoryError, match=note):
        pushing.find_repository("me/private")
    assert find("me/clip").config == TINY_VIT


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command: list[str | Path] = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
        "-keyout", key, "-out", certificate,
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl to make a certificate with")
    return key, certificate


class _Teapot(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(418)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def tls_endpoint(certificate: tuple[Path, Path]) -> Iterator[str]:
    """A server with a self-signed certificate, which answers 418."""
    key, chain = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Teapot)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)


def test_a_self_signed_certificate_is_named(
    hub: LoopbackHub,
    tls_endpoint: str,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point_at(tls_endpoint, monkeypatch)
    assert_all_say(
        f"the certificate of {tls_endpoint} is not trusted (self-signed certificate)",
        "set SSL_CERT_FILE to a file with its root certificate",
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    close_session()
    assert_all_say("the Hub answers 418")


def test_a_server_without_tls_is_named(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = hub.endpoint.replace("http:", "https:")
    point_at(endpoint, monkeypatch)
    assert_all_say(f"{endpoint} does not answer with valid TLS (WRONG_VERSION_NUMBER)")


def test_a_host_without_an_address_is_named(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = "http://no-such-host.invalid"
    point_at(endpoint, monkeypatch)
    assert_all_say(f"the connection to {endpoint} failed (")
    assert not any("ConnectError" in text for text in messages())


def test_an_unreachable_cdn_is_named_instead_of_the_hub(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import file_download

    found = file_download.get_hf_file_metadata

    def moved(url: str, **options: object) -> file_download.HfFileMetadata:
        metadata = found(url, **options)  # type: ignore[arg-type]
        return file_download.HfFileMetadata(
            **{**vars(metadata), "location": "http://127.0.0.1:9/cdn"}
        )

    monkeypatch.setattr(file_download, "get_hf_file_metadata", moved)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(hfclip.NetworkError, match=r"connection to http://127\.0\.0\.1:9 failed"):
        find("me/clip")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 403])
def test_an_http_status_is_named_without_a_hint_about_the_name(
    status: int, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.fault(Status(status), "/*", method="*", times=None)
    known = {429: "too many requests", 403: "not accessible with your token"}
    assert_all_say(known.get(status, f"the Hub answers {status}"))


def test_the_cause_is_reported_if_the_cached_copy_is_used(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    assert find("me/clip").config == TINY_VIT
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    close_session()
    assert find("me/clip").config == TINY_VIT
    assert "SSL_CERT_FILE names /nowhere/ca.pem" in log.text
    assert "Using the cached commit" in log.text


def test_an_error_inside_the_client_is_not_reported_as_a_network_error(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"something with {TOKEN}")

    monkeypatch.setattr(hf_api.HfApi, "model_info", fail)
    monkeypatch.setattr(hf_api.HfApi, "whoami", fail)
    assert_all_say("the Hub's client failed with RuntimeError")
