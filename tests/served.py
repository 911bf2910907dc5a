"""Runs `hfclip app` as a process of its own, or as a fork, and notes whom it asks."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

# Writes each address that the process looks up or connects to, to a file.
_AUDITED = """
import sys
from pathlib import Path

def note(event, arguments):
    if event == "socket.connect":
        print(arguments[1], file=log, flush=True)
    elif event == "socket.getaddrinfo":
        print(arguments[0], file=log, flush=True)

log = Path(sys.argv.pop(1)).open("a")
sys.addaudithook(note)
from hfclip.cli import main
main()
"""
_ADDRESS = re.compile(r"is at (http://\S+)/ ")
# Seconds for a page to start on a busy machine.
_PATIENCE = 90.0
# The server may close a connection after a malformed request, so none is used again.
_ONE_BY_ONE = httpx.Limits(max_keepalive_connections=0)


@dataclass
class Page:
    """A page that is being served.

    Attributes:
        address: Its address, without a slash at the end.
        pid: The number of its process.
        log: What it has printed.
        asked: A file with the addresses that the process looks up or connects to.
        client: Sends requests. A new client for each would take longer than the answers.
        seconds: From the start of the process until the page is ready.
    """

    address: str
    pid: int
    log: Path
    asked: Path
    client: httpx.Client
    seconds: float

    @property
    def addresses(self) -> list[str]:
        """Whom the process has asked."""
        return self.asked.read_text().splitlines()

    @property
    def memory(self) -> int:
        """The most memory that the process has used, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def call(self, name: str, *data: object) -> str:
        """Asks an answer of the page and returns the last event: "complete" or "error", and data.

        Raises:
            HTTPStatusError: The page refuses the request.
        """
        begun = self.client.post(
            f"{self.address}/gradio_api/call/{name}",
            content=json.dumps({"data": data}),  # httpx's json= refuses lone surrogates
            headers={"content-type": "application/json"},
        )
        begun.raise_for_status()
        events = self.client.get(
            f"{self.address}/gradio_api/call/{name}/{begun.json()['event_id']}",
        )
        return events.text.strip().rpartition("event: ")[2]

    def upload(self, *paths: Path) -> list[dict[str, object]]:
        """Sends files and returns what refers to them."""
        files = [("files", (path.name, path.read_bytes())) for path in paths]
        sent = self.client.post(f"{self.address}/gradio_api/upload", files=files)
        sent.raise_for_status()
        return [file_at(path) for path in sent.json()]


def file_at(path: str, **more: object) -> dict[str, object]:
    """Returns what refers to a file in a request."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def result(event: str) -> list[object]:
    """Returns the data of a completed event."""
    kind, _, data = event.partition("\ndata: ")
    assert kind == "complete", event
    found: list[object] = json.loads(data)
    return found


@contextmanager
def served(
    folder: Path, arguments: Sequence[str], python: str | Path = sys.executable
) -> Iterator[Page]:
    """Runs `hfclip app` on the CPU at a free port.

    Args:
        folder: A folder for what the process prints.
        arguments: The arguments after `hfclip app`.
        python: The command of tests/forks.py makes the page a fork, whose memory says nothing.
    """
    log, asked = folder / "log", folder / "asked"
    asked.touch()
    begun = time.perf_counter()
    command = [str(python), "-c", _AUDITED, str(asked), "app", *arguments, "--device", "cpu"]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder)
    try:
        while (match := _ADDRESS.search(log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.perf_counter() - begun < _PATIENCE, log.read_text()
            time.sleep(0.05)
        seconds = time.perf_counter() - begun
        with httpx.Client(timeout=120, trust_env=False, limits=_ONE_BY_ONE) as client:
            yield Page(match[1], process.pid, log, asked, client, seconds)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
