"""Every Python and shell block of the README and of docs/ runs, in page order."""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from documents import Block, blocks_of, have_one_environment, python_with_hfclip, run_blocks
from loopback.hub import LoopbackHub
from PIL import Image
from sklearn.datasets import load_digits

import hfclip
from conversion.digits import WORDS

ROOT = Path(hfclip.__file__).parents[1]
DIGITS = Path(hfclip.__file__).parent / "digits"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs/pages").rglob("*.md")])
TOKEN = "hf_secretOfTheTests"

# The loopback Hub has the bundled model in these repositories, which the pages name.
PUBLISHED = {
    "docs/ViT-B-32": "hfclip",
    "docs/ViT-B-16": "hfclip",
    "docs/RN50": "hfclip",
    "openai/clip-vit-base-patch32": "transformers",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "open_clip",
}


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled model in each layout that a page's repositories have."""
    from hfclip.publishing.export import export

    root = tmp_path_factory.mktemp("layouts")
    names = set(PUBLISHED.values())
    return {name: export("digits", root / name, name) for name in names}


@pytest.fixture
def blocks(page: Path) -> list[Block]:
    """Returns the blocks of a page that are run; first, because other pages need no files."""
    blocks = [block for block in blocks_of(page) if block.reason is None]
    if not blocks:
        pytest.skip("the page has no code that is run")
    return blocks


@pytest.fixture(scope="module")
def hub(layouts: dict[str, Path]) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.add_account("me", TOKEN)
        for repo_id, layout in PUBLISHED.items():
            files = {path.name: path for path in layouts[layout].iterdir()}
            hub.add_repository(repo_id, files)
        yield hub


@pytest.fixture(scope="module")
def shared_environment(
    hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Returns the variables of all programs, the same for all pages."""
    return hub.environment(tmp_path_factory.mktemp("home"), TOKEN) | {
        "HFCLIP_NAMESPACE": "docs",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def environment(hub: LoopbackHub, shared_environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yields the variables of all programs. Each page finds an empty home and a new Hub."""
    with hub.restored():
        yield shared_environment
    home = Path(shared_environment["HOME"])
    shutil.rmtree(home)
    home.mkdir()


@pytest.fixture(scope="module")
def python_of_pages(
    python: Path, shared_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("programs") / "forks"
    with python_with_hfclip(folder, python, shared_environment) as command:
        yield command


@pytest.fixture
def desk(files_of_a_reader: Path, tmp_path: Path) -> Path:
    """Returns a folder with the files that the pages name."""
    return Path(shutil.copytree(files_of_a_reader, tmp_path / "desk"))


@pytest.fixture(scope="module")
def files_of_a_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "photos").mkdir()
    for name, source in {"cat.jpg": "seven", "photos/1.jpg": "two", "photos/2.jpg": "zero"}.items():
        Image.open(DIGITS / f"{source}.png").convert("RGB").resize((64, 64)).save(folder / name)
    shutil.copytree(DIGITS, folder / "hfclip/digits")
    model, _ = hfclip.load("digits", device="cpu")
    torch.save(model.state_dict(), folder / "last.pt")
    model.save_pretrained(folder / "my-clip")
    model.labels, model.templates = ("zero", "seven"), ("a handwritten {}",)
    model.save_pretrained(folder / "my-labels")
    _write_pictures(folder)
    _write_tar(folder / "digits.tar")
    (folder / "labels.txt").write_text("zero\none\ntwo\nseven\n")
    (folder / "results.json").write_text(json.dumps({"accuracy": 0.9}))
    (folder / "train.py").write_text("import clip\nassert clip.available_models()\n")
    return folder


def _write_pictures(folder: Path) -> None:
    """Writes a folder of class folders with digits turned by 90 degrees, and one with upright ones.

    The same turned pictures are in a CSV file too.
    """
    data = load_digits()
    rows = ["file,label"]
    for number in range(60):
        word = WORDS[data.target[number]]
        pixels = (data.images[number] * 255 / 16).round().astype("uint8")
        # Two upright ones of each digit are enough: they are measured a dozen times.
        upright = [("upright", pixels)] if number < 20 else []
        for name, picture in [("pictures", np.rot90(pixels)), *upright]:
            path = folder / name / word / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        rows.append(f"pictures/{word}/{number}.png,{word}")
    (folder / "pictures.csv").write_text("\n".join(rows) + "\n")


def _write_tar(path: Path) -> None:
    """Writes 1,200 upright digits to one file, which is enough for an index."""
    with tarfile.open(path, "w") as tar:
        for number, pixels in enumerate(load_digits().images[:1200]):
            content = io.BytesIO()
            Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(content, "PNG")
            member = tarfile.TarInfo(f"{number:04}.png")
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(
    page: Path,
    blocks: list[Block],
    environment: dict[str, str],
    desk: Path,
    python: Path,
    python_of_pages: Path,
) -> None:
    command = python_of_pages if have_one_environment(blocks) else python
    done = run_blocks(page, blocks, desk, environment, command)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_a_failing_block_is_detected(tmp_path: Path, python: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    assert blocks_of(page) == [
        Block("python", 4, "x = 1\n", None),
        Block("python", 8, "assert x == 2\n", None),
    ]
    done = run_blocks(page, blocks_of(page), tmp_path, {}, python)
    assert done.returncode == 1
    assert 'File "page.md:8", line 8' in done.stderr


def test_each_block_that_is_not_run_has_a_known_reason() -> None:
    reasons = {
        block.reason for page in PAGES for block in blocks_of(page) if block.reason is not None
    }
    assert reasons <= REASONS


# The only accepted reasons for a block that the tests do not run.
REASONS = {
    "it installs software",
    "it needs a checkout and a network",
    "it needs OpenAI's files",
    "it builds a package",
    "it needs a bucket",
    "it takes many minutes",
    "it serves a page until Ctrl-C",
}
