"""The files of a Space, run as a program that asks a loopback Hub for the model."""

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from loopback.hub import LoopbackHub

from hfclip.app.demo import open_demo
from hfclip.releases import bundled_folder

TOKEN = "hf_secretOfTheTests"
SEVEN = bundled_folder("digits") / "seven.png"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATE = "a handwritten {}"
# Seconds for a process to answer on a busy machine.
PATIENCE = 120.0
# Asks the page as any program does. It runs alone, because the client leaves threads behind.
ASK = """
import json, sys
from gradio_client import Client, handle_file
client = Client(sys.argv[1], verbose=False)
answer, _ = client.predict(handle_file(sys.argv[2]), *sys.argv[3:], api_name="/classify")
print(json.dumps(answer))
"""


def hfclip(python: Path, environment: Mapping[str, str], *arguments: object) -> str:
    """Runs a command and returns what it prints."""
    command = [str(python), "-m", "hfclip", *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(python: Path, folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Runs app.py as a Space does, and yields what it prints when the page is ready."""
    log = folder.with_name("log")
    begun = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(python), "app.py"],
            cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        while "is at http" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - begun < PATIENCE, log.read_text()
            time.sleep(0.05)
        yield log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def test_the_pushed_folder_answers_as_hfclip_classify(tmp_path: Path, python: Path) -> None:
    with LoopbackHub() as hub:
        hub.add_account("me", TOKEN)
        files = ("config.json", "model.safetensors")
        commit = hub.add_repository(
            "me/digits", {name: bundled_folder("digits") / name for name in files}
        )
        environment = hub.environment(tmp_path / "mine", TOKEN)
        address = "https://example.org/hfclip.whl"
        hfclip(
            python, environment, "app", "me/digits", "--push", "me/demo", "--hfclip-from", address
        )  # fmt: skip
        pushed = hub.repository("spaces/me/demo").find("main")
        assert pushed is not None
        folder = tmp_path / "space"
        folder.mkdir()
        for name in ("app.py", "requirements.txt", "README.md"):
            (folder / name).write_bytes(pushed.files[name].content.read())
        # The model moves on. The Space shows the commit that it names.
        hub.push("me/digits", {"model.safetensors": b"another model", "config.json": b"{}"})
        port = free_port()
        # A Space is another machine: no token, an empty cache, and the variables of a Space.
        settings = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": str(port)}  # noqa: S104
        elsewhere = hub.environment(tmp_path / "elsewhere") | settings | {"SYSTEM": "spaces"}
        hub.forget_calls()
        with running(python, folder, elsewhere) as log:
            assert log.startswith("The page of me/digits is at http")
            fetched = {call.path for call in hub.calls if call.file == "model.safetensors"}
            assert f"/me/digits/resolve/{commit}/model.safetensors" in fetched
            answer = ask(python, f"http://127.0.0.1:{port}", elsewhere)
        told = hfclip(
            python, environment, "classify", SEVEN, "--model", f"me/digits@{commit}",
            "--labels", ",".join(WORDS), "--template", TEMPLATE, "--top", 10, "--json",
        )  # fmt: skip
    expected = {one["label"]: one["probability"] for one in json.loads(told)[0]["labels"]}
    assert answer == pytest.approx(expected, abs=1e-6)
    assert list(answer) == list(expected)
    assert max(answer, key=lambda label: answer[label]) == "seven"


def ask(python: Path, address: str, environment: Mapping[str, str]) -> dict[str, float]:
    """Asks a page to classify the picture of a seven and returns the probability of each label."""
    command = [str(python), "-c", ASK, address, str(SEVEN), "\n".join(WORDS), TEMPLATE]
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    bars: Any = json.loads(done.stdout)
    return {one["label"]: one["confidence"] for one in bars["confidences"]}


def test_elsewhere_only_this_machine_reaches_the_page(tmp_path: Path, python: Path) -> None:
    folder = tmp_path / "space"
    folder.mkdir()
    (folder / "app.py").write_text(
        "from hfclip.app.demo import open_demo\n"
        "from hfclip.app.space import serve_space\n\n"
        'serve_space(open_demo("digits"))\n'
    )
    with LoopbackHub() as hub:
        port = free_port()
        environment = hub.environment(tmp_path / "home") | {"GRADIO_SERVER_PORT": str(port)}
        with running(python, folder, environment) as log:
            assert re.search(rf"is at http://127\.0\.0\.1:{port}/?\n", log)
        assert hub.calls == []


def test_a_page_is_named_without_its_commit() -> None:
    demo = open_demo("digits", device="cpu")
    assert demo.name == "digits"
    demo.model = "me/my-clip@0a1b"
    assert demo.name == "me/my-clip"
