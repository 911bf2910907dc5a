"""`hfclip app`: its options, and what it refuses before it serves."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from small_collection import unit_rows, write_collection

from hfclip.app.demo import Demo
from hfclip.app.limits import Limits
from hfclip.cli import main
from hfclip.releases import bundled_folder


def app(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["app", *map(str, arguments), "--device", "cpu"])


class Page:
    """Stands for a page that ends at once."""

    name, address = "digits", "http://127.0.0.1:1234/"

    def __init__(self) -> None:
        self.ended: list[str] = []

    def wait(self) -> None:
        self.ended.append("waited")

    def close(self) -> None:
        self.ended.append("closed")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces the server, and returns what it is called with and the page."""
    calls: list[Any] = []

    def serve(demo: Demo, *place: object) -> Page:
        page = Page()
        calls[:] = [demo, place, page]
        return page

    monkeypatch.setattr("hfclip.app.serve.serve", serve)
    return calls


def test_the_page_of_a_model_answers_to_this_machine_and_ends_with_the_command(
    served: list[Any],
) -> None:
    result = app("digits")
    demo, place, page = served
    assert result.output == ("The page of digits is at http://127.0.0.1:1234/ (Ctrl-C ends it)\n")
    assert (demo.name, demo.embeddings, place) == ("digits", None, ("127.0.0.1", None))
    assert demo.limits == Limits()
    assert page.ended == ["waited", "closed"]


def test_the_options_choose_host_port_and_queue(served: list[Any]) -> None:
    assert app("digits", "--host", "0.0.0.0", "--port", 8080, "--queue", 3).exit_code == 0  # noqa: S104
    assert served[1] == ("0.0.0.0", 8080)  # noqa: S104
    assert served[0].limits.waiting == 3


def test_a_collection_names_its_model(tmp_path: Path, served: list[Any]) -> None:
    out = write_collection(tmp_path / "out", unit_rows(2), kind="texts")
    result = app("--embeddings", out, "--base", "digits")
    assert (result.exit_code, "Leave out --base" in result.stderr) == (2, True)
    result = app("--embeddings", out)
    assert result.exit_code == 1
    assert "is a collection of texts; the page shows collections of pictures" in result.stderr
    result = app("--embeddings", tmp_path / "none")
    assert result.exit_code == 1
    assert "none" in result.stderr
    assert served == []


def test_a_taken_port_is_named(python: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [str(python), "-m", "hfclip", "app", "digits", "--port", port]
        result = subprocess.run(
            [*command, "--device", "cpu"], capture_output=True, text=True, check=False
        )
    assert result.returncode == 1
    assert f"The page cannot listen at 127.0.0.1, port {port}" in result.stderr
    assert "Choose another with --port." in result.stderr


def test_a_model_that_cannot_be_loaded_ends_the_page_with_the_reason(
    tmp_path: Path, python: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(bundled_folder("digits"), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    command = [str(python), "-m", "hfclip", "app", str(folder), "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout.startswith("The page of damaged is at http://127.0.0.1:")
    assert f"{weights} cannot be read" in result.stderr
    assert "truncated" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_device_is_named_before_the_page_is_served(served: list[Any]) -> None:
    result = CliRunner().invoke(main, ["app", "digits", "--device", "abacus"])
    assert (result.exit_code, "abacus" in result.stderr) == (1, True)
    assert served == []


def test_a_missing_gradio_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = app("digits")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: The page needs gradio: pip install 'hfclip[app]'\n",
    )
