"""moto's S3 server on the loopback, which can be stopped and started with its files."""

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# Answers a request, or returns None to let the server answer it.
Gate = Callable[[dict[str, Any]], None]


class S3Server:
    """An S3 server with an own port.

    Attributes:
        url: Its address.
        gate: Is called before each request with its WSGI environment. It may wait or raise.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import create_backend_app

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        # moto's dispatcher of services looks for all of them on disk, twice for each request.
        self._app = create_backend_app("s3")
        self._server: Any = None
        self.url = f"http://127.0.0.1:{self._port}"
        self.gate: Gate | None = None

    def start(self) -> None:
        """Starts the server, or starts it again on the same port."""
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *_: object) -> None:
                """Writes nothing."""

        self._server = make_server(
            "127.0.0.1", self._port, self._answer, threaded=True, request_handler=Quiet
        )
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuses connections from now on. The files stay."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _answer(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        if self.gate is not None:
            self.gate(environment)
        answer: Iterable[bytes] = self._app(environment, start)
        return answer


@contextmanager
def served() -> Iterator[S3Server]:
    """Runs a server, and names it in the environment of this process."""
    pytest.importorskip("moto")
    client = pytest.importorskip("s3fs").S3FileSystem
    server = S3Server()
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        # fsspec keeps clients, with the address that the environment had when they were made.
        client.clear_instance_cache()
        try:
            yield server
        finally:
            client.clear_instance_cache()
            server.gate = None
            server.stop()


def new_bucket(name: str) -> str:
    """Makes an empty bucket and returns its URL."""
    from fsspec import filesystem

    filesystem("s3").mkdir(name)
    return f"s3://{name}"


def put(url: str, files: dict[str, bytes]) -> None:
    """Writes files below a URL."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    for name, content in files.items():
        system.pipe_file(f"{path}/{name}", content)


def files_at(url: str) -> dict[str, bytes]:
    """Returns all files below a URL, without locks."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    system.invalidate_cache()
    start = len(path.rstrip("/")) + 1
    found = [name for name in system.find(path) if "/locks/" not in name]
    return {name[start:]: system.cat_file(name) for name in found}


def environment_with(**values: str) -> dict[str, str]:
    """Returns the environment of a child of this process."""
    return {**os.environ, **values}
