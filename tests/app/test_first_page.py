"""The page is shown before its model is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from hfclip.app.demo import Demo, open_demo
from hfclip.errors import DeviceError, ModelNotFoundError

SERVES = """
import sys
from urllib.request import urlopen

from hfclip.app.demo import open_demo
from hfclip.app.serve import serve

demo = open_demo({arguments})
page = serve(demo)
assert "digits · hfclip" in urlopen(page.address).read().decode()
print("torch" in sys.modules, "torchvision" in sys.modules)
demo.loaded
print("torch" in sys.modules)
page.close()
"""

QUICK = """
from hfclip.app.quick_import import import_gradio

import_gradio()
import gradio
from gradio.events import EventListener
from gradio.component_meta import create_or_modify_pyi

class Field(gradio.Textbox):
    EVENTS = [EventListener("bell")]

print(hasattr(Field, "bell"), create_or_modify_pyi(Field, "Field", []))
"""


def run(program: str, folder: Path) -> str:
    """Runs a program in a process of its own and returns what it prints."""
    (folder / "program.py").write_text(program)
    command = [sys.executable, str(folder / "program.py")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("with_collection", [False, True])
def test_the_page_is_served_before_torch_is_imported(
    with_collection: bool, collection: Path, tmp_path: Path
) -> None:
    arguments = f"embeddings={str(collection)!r}" if with_collection else "'digits'"
    printed = run(SERVES.format(arguments=arguments), tmp_path)
    assert printed == "False False\nTrue\n"


def test_gradio_is_imported_without_writing_stub_files(tmp_path: Path) -> None:
    assert run(QUICK, tmp_path) == "True None\n"
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]


def test_what_can_be_known_before_the_model_is_loaded_is_said_at_once() -> None:
    with pytest.raises(ModelNotFoundError):
        open_demo("no-such-model")
    with pytest.raises(DeviceError):
        open_demo("digits", device="abacus")


def test_a_model_is_loaded_once(alone: Demo) -> None:
    assert alone.loaded is alone.loaded
