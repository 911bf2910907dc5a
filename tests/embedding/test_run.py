"""`hfclip embed`: a folder with every kind of file, kills, and the values."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.nn.functional import normalize

import hfclip
from hfclip.cli import main
from hfclip.embedding.parts import Rows, joined, read_part

KILLED = Path(__file__).with_name("killed_run.py")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(300):
        Image.fromarray(draw.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{number:03}.png")
    return folder


def rows_of(out: Path) -> Rows:
    return joined(read_part(path) for path in sorted(out.glob("*.parquet")))


def test_values_are_the_models(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--model", "digits", "--dtype", "float32", "--part-size", "70", "--json"]
    result = CliRunner().invoke(main, ["embed", str(pictures), "-o", str(out), *arguments])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["embedded"] == 300
    model, preprocess = hfclip.load("digits", device="cpu", preprocess="fast")
    names = sorted(pictures.iterdir())
    pixels = torch.stack([preprocess(Image.open(name)) for name in names])
    with torch.no_grad():
        expected = normalize(model.encode_image(pixels), dim=-1).numpy()
    rows = rows_of(out)
    assert [Path(key).name for key in rows.keys] == [name.name for name in names]
    np.testing.assert_allclose(rows.embeddings.values, expected, atol=1e-4)
    again = CliRunner().invoke(main, ["embed", str(pictures), "-o", str(out), *arguments])
    assert json.loads(again.stdout)["encoded"] == 0


def test_a_folder_of_every_kind_ends_well(tmp_path: Path) -> None:
    folder, out = tmp_path / "mixed", tmp_path / "out"
    folder.mkdir()
    image = Image.new("RGB", (64, 48), "red")
    for name in ("a.jpg", "b.png", "c.gif", "d.tif", "e.bmp"):
        image.save(folder / name)
    image.convert("CMYK").save(folder / "f.jpg")
    (folder / "empty.jpg").touch()
    content = (folder / "a.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    Image.new("L", (400, 400)).save(folder / "large.png")
    result = CliRunner().invoke(
        main,
        ["embed", str(folder), "-o", str(out), "--model", "digits", "--max-pixels", "10000"],
    )
    assert result.exit_code == 0, result.output
    rows = rows_of(out)
    failed = {Path(key).name for key, error in zip(rows.keys, rows.errors, strict=True) if error}
    assert failed == {"empty.jpg", "truncated.jpg", "large.png"}
    assert int(rows.embeddings.valid.sum()) == 6
    assert len((out / "errors.csv").read_text().splitlines()) == 1 + 3


def test_where_nothing_was_embedded_the_status_is_1(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.jpg").touch()
    arguments = ["embed", str(folder), "-o", str(tmp_path / "out"), "--model", "digits"]
    assert CliRunner().invoke(main, arguments).exit_code == 1


def test_a_run_that_is_killed_and_resumed_equals_an_uninterrupted_run(
    pictures: Path, tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, KILLED, pictures, tmp_path, "8"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(result.stdout)["kills"] >= 1
    whole, resumed = rows_of(tmp_path / "whole"), rows_of(tmp_path / "killed")
    assert resumed.keys == whole.keys
    assert len(set(whole.keys)) == 300
    assert resumed.embeddings.valid.all()
    assert np.array_equal(resumed.embeddings.values, whole.embeddings.values)
