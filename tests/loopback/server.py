"""An HTTP/1.1 server on the loopback interface that releases all resources when it stops."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Self
from urllib.parse import parse_qsl

from .faults import CutError
from .messages import Reply, Request, body_of


class _Connection(BaseHTTPRequestHandler):
    """The connection of one client: reads requests and writes replies."""

    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    # Headers and body are separate packets; Nagle's algorithm would delay the second by 40 ms.
    disable_nagle_algorithm = True

    def serve_request(self) -> None:
        request = self._request()
        try:
            reply = self.server.answer(request)
            request.drain()
            self._send(reply)
        except CutError as cut:
            self._end(reset=cut.reset)

    do_HEAD = do_GET = do_POST = do_PUT = do_DELETE = serve_request  # noqa: N815

    def _request(self) -> Request:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = body_of(self.rfile, headers)
        return Request(self.command, path, dict(parse_qsl(query)), headers, body)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(reply.length))
        self.end_headers()
        for chunk in reply.chunks:
            self.wfile.write(chunk)

    def _end(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            # With a linger time of 0, close sends RST. An open reader would delay it.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.rfile.close()
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Prints nothing: the Hub has its own log."""


class LoopbackServer(ThreadingHTTPServer):
    """An HTTP server on 127.0.0.1 that ends all its connections when it stops."""

    request_queue_size = 128

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self.failures: list[BaseException] = []
        self._connections: dict[socket.socket, threading.Thread] = {}
        super().__init__(("127.0.0.1", 0), _Connection)
        # Interval of the check for a stop. A stop takes half of it on average.
        self._loop = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._loop.join()
        for connection, thread in list(self._connections.items()):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)
        self.server_close()

    def server_bind(self) -> None:
        # HTTPServer would look up the host name, which can take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        arguments = (request, client_address)
        thread = threading.Thread(target=self._serve_connection, args=arguments, daemon=True)
        self._connections[request] = thread
        thread.start()

    def _serve_connection(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            del self._connections[request]

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A closed connection is not an error: some tests kill the client.
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.failures.append(error)
