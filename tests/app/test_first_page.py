"""The page is shown before its model is loaded."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hfclip.app.demo import Demo, open_demo
from hfclip.errors import DeviceError, ModelNotFoundError

# Each print is a line that a test reads. One process does it all, because gradio and torch take 5
# seconds to import: it serves both pages before it loads a model.
PROGRAM = """
import atexit
import os
import sys
from urllib.request import urlopen

from hfclip.app.quick_import import import_gradio

import_gradio()
import gradio
from gradio.events import EventListener
from gradio.component_meta import create_or_modify_pyi

class Field(gradio.Textbox):
    EVENTS = [EventListener("bell")]

print(hasattr(Field, "bell"), create_or_modify_pyi(Field, "Field", []))

from hfclip.app.demo import open_demo
from hfclip.app.serve import serve

demos = [open_demo("digits"), open_demo(embeddings=sys.argv[1])]
for demo in demos:
    page = serve(demo)
    assert "digits · hfclip" in urlopen(page.address).read().decode()
    print("torch" in sys.modules, "torchvision" in sys.modules)
    page.close()
for demo in demos:
    demo.loaded
    print("torch" in sys.modules)
atexit._run_exitfuncs()
sys.stdout.flush()
os._exit(0)  # clearing all modules takes a second
"""


@dataclass(frozen=True)
class Ran:
    """What the program has printed, by line, and the folder that it was run from."""

    lines: list[str]
    folder: Path


@pytest.fixture(scope="module")
def ran(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Runs the program in a process of its own."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(folder / "program.py"), str(collection)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Ran(done.stdout.splitlines(), folder)


@pytest.mark.parametrize("with_collection", [False, True])
def test_the_page_is_served_before_torch_is_imported(with_collection: bool, ran: Ran) -> None:
    served, loaded = ran.lines[1:3], ran.lines[3:]
    assert (served[with_collection], loaded[with_collection]) == ("False False", "True")


def test_gradio_is_imported_without_writing_stub_files(ran: Ran) -> None:
    assert ran.lines[0] == "True None"
    assert [path.name for path in ran.folder.iterdir()] == ["program.py"]


def test_what_can_be_known_before_the_model_is_loaded_is_said_at_once() -> None:
    with pytest.raises(ModelNotFoundError):
        open_demo("no-such-model")
    with pytest.raises(DeviceError):
        open_demo("digits", device="abacus")


def test_a_model_is_loaded_once(alone: Demo) -> None:
    assert alone.loaded is alone.loaded
