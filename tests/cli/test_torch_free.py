"""Commands that import no torch, and commands where torch is not installed."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from small_collection import unit_rows, write_collection
from torch_free import CLIENT, TORCH, run

import hfclip
from hfclip.config import ClipConfig
from hfclip.embedding.identity import config_digest
from hfclip.releases import BUNDLED

DIGITS = Path(hfclip.__file__).parent / "digits"
SEVEN = str(DIGITS / "seven.png")
LABELS = ("--labels", "six,seven,eight", "--template", "the digit {}")


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a collection of the bundled model whose matrix is built."""
    folder = write_collection(
        tmp_path_factory.mktemp("collection") / "out",
        unit_rows(20, 64),
        dimension=64,
        sha256=BUNDLED["digits"]["model.safetensors"],
        config_digest=config_digest(ClipConfig.from_json(DIGITS / "config.json")),
    )
    assert len(hfclip.Embeddings(folder).vectors) == 20
    return str(folder)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("classify", "--help"),
        ("models",),
        ("models", "--json"),
        ("inspect", "digits"),
        ("verify", "digits"),
        ("download", "digits"),
        ("classify", SEVEN, "--model", "digits", *LABELS),
    ],
    ids=lambda arguments: " ".join(arguments[:2]) if len(arguments[0]) < 9 else "",
)
def test_a_command_imports_neither_torch_nor_the_client_of_the_hub(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = run(*arguments, home=tmp_path, avoided=(*TORCH, *CLIENT, "tqdm.std"))
    if arguments[0] == "verify":  # its files get a progress bar
        done = run(*arguments, home=tmp_path, avoided=(*TORCH, *CLIENT))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_help_and_models_import_no_numpy(tmp_path: Path) -> None:
    for arguments in (("--help",), ("models",)):
        done = run(*arguments, home=tmp_path, avoided=("numpy", "PIL", "pyarrow", *TORCH))
        assert (done.returncode, done.stderr) == (0, "")


def test_torch_is_what_is_looked_for(tmp_path: Path) -> None:
    picture = ("classify", SEVEN, "--model", "digits", *LABELS, "--backend", "torch")
    done = run(*picture, home=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("imported: ['torch'")


@pytest.mark.parametrize("query", [("the digit seven",), ("--like", "photos/0003.jpg")])
def test_a_search_imports_no_torch(query: tuple[str, ...], collection: str, tmp_path: Path) -> None:
    done = run("search", collection, *query, "--json", home=tmp_path, avoided=(*TORCH, *CLIENT))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == 10


def test_a_collection_is_classified_without_torch(collection: str, tmp_path: Path) -> None:
    done = run("classify", collection, *LABELS, "--json", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == 20


@pytest.mark.parametrize("backend", ["auto", "numpy"])
def test_without_torch_pictures_are_classified(backend: str, tmp_path: Path) -> None:
    picture = ("classify", SEVEN, "--model", "digits", *LABELS, "--backend", backend, "--json")
    done = run(*picture, home=tmp_path, without=TORCH)
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)
    assert row["labels"][0]["label"] == "seven"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("classify", SEVEN, "--model", "digits", *LABELS, "--backend", "torch"), "classify"),
        (("embed", str(DIGITS), "-o", "out", "--model", "digits"), "embed"),
        (("export", "digits", "out", "--layout", "transformers"), "export"),
    ],
)
def test_without_torch_a_command_that_needs_it_says_so_in_one_line(
    arguments: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments, home=tmp_path, without=TORCH)
    assert done.returncode == 1
    assert done.stderr == f"Error: hfclip {name} needs torch: pip install torch torchvision\n"


def test_without_torch_a_picture_as_a_query_says_so(collection: str, tmp_path: Path) -> None:
    done = run("search", collection, "--image", SEVEN, home=tmp_path, without=TORCH)
    assert done.stderr == "Error: hfclip search needs torch: pip install torch torchvision\n"


def test_without_torch_hfclip_load_says_so() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "try:\n    from hfclip import load\n"
        "except ImportError as error:\n    print(type(error).__name__, error)\n"
        "from hfclip import inspect, tokenize\nprint(inspect('digits').pixels)\n"
        "try:\n    tokenize('a cat')\n"
        "except ImportError as error:\n    print(type(error).__name__, str(error)[:28])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout == (
        "NeedsTorchError hfclip.load needs torch: pip install torch torchvision\n32\n"
        "NeedsTorchError hfclip.tokenize needs torch:\n"
    )


@pytest.mark.skipif(
    "HFCLIP_TEST_INSTALL" not in os.environ, reason="set HFCLIP_TEST_INSTALL to install by pip"
)
def test_an_environment_without_torch_classifies(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/pages/without-torch.md").read_text()
    packages = page.split("\npip install numpy", 1)[1].splitlines()[0].split()
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv/bin/python")
    install = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "numpy", *packages], check=True)
    subprocess.run([*install, "--no-deps", str(Path(__file__).parents[2])], check=True)
    done = run(*("classify", SEVEN, "--model", "digits", *LABELS), home=tmp_path, python=python)
    assert (done.returncode, done.stderr) == (0, "")
    assert "seven" in done.stdout
    found = subprocess.run(
        [python, "-c", "import torch"], capture_output=True, text=True, check=False
    )
    assert "No module named 'torch'" in found.stderr
