"""hfclip in place of `clip`: in this process, in a script, and in its child processes."""

import ast
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import hfclip
from hfclip import compat
from hfclip.network.clip import convert_weights

PACKAGE = Path(hfclip.__file__).parent
OUTSIDE = sorted(path for path in PACKAGE.rglob("*.py") if "compat" not in path.parts)
# Names that only `clip` has. Other modules may have a `_download` or `_transform`.
OLD_NAMES = {
    "_MODELS",
    "_Tokenizer",
    "_convert_image_to_rgb",
    "SimpleTokenizer",
    "basic_clean",
    "build_model",
    "bytes_to_unicode",
    "default_bpe",
    "get_pairs",
    "whitespace_clean",
}

SCRIPT = """
import json, sys
import numpy, PIL.Image, torch
import clip
from clip import load, tokenize
from clip.model import CLIP, LayerNorm, ResidualAttentionBlock, convert_weights
from clip.simple_tokenizer import SimpleTokenizer as _Tokenizer
import helper  # lies beside the script

def main():
    model, preprocess = clip.load(sys.argv[1], device="cpu")
    assert isinstance(model, CLIP) and isinstance(model.ln_final, LayerNorm)
    gradient = numpy.arange(80 * 70 * 3, dtype=numpy.uint8).reshape(80, 70, 3)
    image = preprocess(PIL.Image.fromarray(gradient))[None]
    with torch.no_grad():
        logits = model(image, clip.tokenize(["a dog", "a cat"]))[0]
    print(json.dumps([logits.tolist(), _Tokenizer().encode("a dog"), sys.argv[2:], helper.NAME]))

if __name__ == "__main__":
    main()
"""

SPAWNING = """
import multiprocessing
import clip
from clip.model import CLIP

def work(queue):
    import clip
    queue.put((clip.load.__module__, CLIP.__module__, clip.available_models()[0]))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    print(queue.get())
    process.join()
"""


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Removes each imported `clip` package before and after a test."""
    others = {name: sys.modules.pop(name) for name in _loaded()}
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in _loaded():
        del sys.modules[name]
    sys.modules.update(others)


def _is_clip(name: str) -> bool:
    return name[:5] in ("clip", "clip.")


def _loaded() -> list[str]:
    """Returns the names of a loaded `clip` package and its modules."""
    # Without a call for each of thousands of modules, because it runs twice in each test.
    return [name for name in sys.modules if name[:5] in ("clip", "clip.")]


def run(
    *arguments: str | Path, python: str | Path = sys.executable, warn: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs Python, or the command of the fixture `python`, with an action for warnings."""
    return subprocess.run(
        [python, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | ({"PYTHONWARNINGS": warn} if warn else {}),
    )


def test_import_clip_and_its_three_modules_load_hfclip() -> None:
    compat.install()
    clip = importlib.import_module("clip")
    model = importlib.import_module("clip.model")
    assert model.CLIP is hfclip.CLIP
    assert clip.model is model
    assert clip.clip is importlib.import_module("clip.clip")
    assert clip.simple_tokenizer is importlib.import_module("clip.simple_tokenizer")
    assert clip.load is clip.clip.load
    assert clip.available_models() == hfclip.available_models()
    assert torch.equal(clip.tokenize("a cat"), hfclip.tokenize("a cat"))
    spec = importlib.util.find_spec("clip")
    assert spec is not None
    assert spec.name == "clip"
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("clip.nothing")


def test_a_second_install_changes_nothing() -> None:
    compat.install()
    first, path = sys.modules["clip"], list(sys.path)
    compat.install()
    assert sys.modules["clip"] is first
    assert sys.path == path


def test_another_clip_is_replaced_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    other, inner = ModuleType("clip"), ModuleType("clip.model")
    other.__file__ = "/somewhere/clip/__init__.py"
    sys.modules.update({"clip": other, "clip.model": inner})
    with pytest.raises(compat.ClipImportedError, match=r"from /somewhere/clip.*replace=True"):
        compat.install()
    assert sys.modules["clip"] is other
    compat.install(replace=True)
    assert importlib.import_module("clip.model").CLIP is hfclip.CLIP


def test_the_import_error_is_an_hfclip_error() -> None:
    assert issubclass(compat.ClipImportedError, hfclip.HfclipError)
    assert issubclass(compat.ClipImportedError, ImportError)


def test_uninstall_restores_the_original_clip() -> None:
    before = list(sys.path)
    compat.install()
    compat.uninstall()
    assert not any(map(_is_clip, sys.modules))
    assert sys.path == before
    sys.modules["clip"] = other = ModuleType("clip")
    compat.uninstall()
    assert sys.modules["clip"] is other


def test_a_script_runs_unchanged_and_gives_the_same_values(tmp_path: Path, python: Path) -> None:
    numbers = (16, 32, 1, 64, 16, 77, 49408, 64, 1, 1)
    model = hfclip.CLIP(*numbers)
    convert_weights(model)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "helper.py").write_text("NAME = 'beside'")
    arguments = (tmp_path / "script.py", tmp_path / "weights.pt", "--epochs", "3")
    ours = run("-m", "hfclip.compat", *arguments, python=python, warn="error")
    assert (ours.returncode, ours.stderr) == (0, "")
    theirs = run(*arguments, python=python, warn="ignore")
    assert theirs.returncode == 0, theirs.stderr
    (logits, *rest), (expected, *others) = json.loads(ours.stdout), json.loads(theirs.stdout)
    assert rest == others == [[320, 1929], ["--epochs", "3"], "beside"]
    assert logits[0] == pytest.approx(expected[0], rel=1e-5)


def test_processes_that_a_script_spawns_use_hfclip_too(tmp_path: Path, python: Path) -> None:
    (tmp_path / "script.py").write_text(SPAWNING)
    script = tmp_path / "script.py"
    result = run("-m", "hfclip.compat", script, python=python, warn="error")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "('hfclip.compat.clip', 'hfclip.model', 'RN50')\n"


def test_a_module_runs_like_a_script(python: Path) -> None:
    result = run("-m", "hfclip.compat", "-m", "this", python=python, warn="error")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("The Zen of Python")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "usage: python -m hfclip.compat script.py"),
        (("-m",), 2, "usage: python -m hfclip.compat script.py"),
        (("absent.py", "x"), 2, "There is no file absent.py.\nusage:"),
        (("--help",), 0, "usage: python -m hfclip.compat script.py"),
    ],
)
def test_a_call_without_a_script_prints_the_usage(
    arguments: tuple[str, ...], status: int, words: str
) -> None:
    result = run("-m", "hfclip.compat", *arguments)
    assert result.returncode == status
    assert (result.stderr if status else result.stdout).startswith(words)


def test_importing_compat_does_not_import_torch() -> None:
    code = "import sys, hfclip.compat; assert not {'torch', 'clip'} & set(sys.modules)"
    assert run("-c", code).returncode == 0


def names_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.alias):
            yield node.name


def modules_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.stem)
def test_no_other_module_uses_compat(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = list(modules_in(nodes))
    assert not [name for name in modules if name.startswith("hfclip.compat")]
    assert not [name for name in modules if _is_clip(name)]
    assert OLD_NAMES.isdisjoint(names_in(nodes))


def test_the_import_check_detects_a_forbidden_import() -> None:
    assert len(OUTSIDE) > 15
    code = "from hfclip import compat\nimport hfclip.compat.clip as c\nc._MODELS['x']"
    nodes = list(ast.walk(ast.parse(code)))
    assert list(modules_in(nodes)) == ["hfclip.compat", "hfclip.compat.clip"]
    assert not OLD_NAMES.isdisjoint(names_in(nodes))
