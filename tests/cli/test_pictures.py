"""`hfclip classify` with rotated, 16-bit and HEIC pictures, folders and other files."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import hfclip
from hfclip.cli import main

DIGITS = Path(hfclip.__file__).parent / "digits"
WORDS = "zero,one,two,three,four,five,six,seven,eight,nine"


def classify(*arguments: str | Path, model: str = "digits") -> Result:
    options = ["--model", model, "--labels", WORDS, "--template", "a handwritten {}"]
    return CliRunner().invoke(main, ["classify", *map(str, arguments), *options])


def best(result: Result) -> dict[str, str]:
    """Returns the first label of each picture, by file name."""
    return {Path(row["image"]).name: row["labels"][0]["label"] for row in json.loads(result.stdout)}


@pytest.fixture
def seven() -> Image.Image:
    return Image.open(DIGITS / "seven.png").convert("L")


# The stored pixels of a rotated camera, and the orientation in its EXIF data.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def test_a_rotated_seven_is_classified_as_seven(seven: Image.Image, tmp_path: Path) -> None:
    for orientation, turn in TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for ending in ("jpg", "png", "webp", "tif"):
            seven.transpose(turn).save(tmp_path / f"{orientation}.{ending}", exif=exif)
    found = best(classify(tmp_path, "--json"))
    assert len(found) == 28
    assert set(found.values()) == {"seven"}
    untouched = best(classify(tmp_path / "3.png", tmp_path / "6.png", "--json", "--no-auto-orient"))
    assert "seven" not in untouched.values()


def test_a_16_bit_seven_is_classified_as_seven(seven: Image.Image, tmp_path: Path) -> None:
    levels = np.asarray(seven)
    Image.fromarray(levels * np.uint16(257)).save(tmp_path / "deep.png")
    Image.fromarray(levels * np.uint16(257)).save(tmp_path / "deep.tif")
    Image.fromarray(levels / np.float32(255)).save(tmp_path / "float.tif")
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "float255.tif")
    (row,) = json.loads(classify(DIGITS / "seven.png", "--json").stdout)
    rows = json.loads(classify(tmp_path, "--json").stdout)
    assert len(rows) == 4
    for other in rows:  # a batch of four sums in another order
        for found, expected in zip(other["labels"], row["labels"], strict=True):
            assert found["label"] == expected["label"]
            assert found["probability"] == pytest.approx(expected["probability"], rel=1e-4)


def test_an_empty_folder_is_an_error_and_needs_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    text = classify(tmp_path, model="no/such-model")
    assert text.exit_code == 1
    assert text.stdout == ""
    assert text.stderr.splitlines() == [
        f"1 file was skipped: {tmp_path / 'notes.txt'}",
        f"Error: {tmp_path}: this folder contains no pictures.",
    ]
    as_json = classify(tmp_path, "--json", model="no/such-model")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout) == [
        {"image": str(tmp_path), "error": f"{tmp_path}: this folder contains no pictures."}
    ]


def test_an_empty_folder_beside_a_picture_is_reported_too(tmp_path: Path) -> None:
    result = classify(tmp_path, DIGITS / "two.png", "--json")
    assert result.exit_code == 1
    empty, row = json.loads(result.stdout)
    assert empty["error"] == f"{tmp_path}: this folder contains no pictures."
    assert row["labels"][0]["label"] == "two"


def test_other_files_of_a_folder_are_named_but_are_not_failures(tmp_path: Path) -> None:
    shutil.copy(DIGITS / "four.png", tmp_path)
    for name in ("notes.pdf", "._four.png", "features.h5"):
        (tmp_path / name).write_bytes(b"something else")
    for options in ([], ["--json"]):
        result = classify(tmp_path, *options)
        assert result.exit_code == 0
        names = ", ".join(
            str(tmp_path / name) for name in ("._four.png", "features.h5", "notes.pdf")
        )
        assert result.stderr == f"3 files were skipped: {names}\n"
    assert best(result) == {"four.png": "four"}


def test_a_long_list_of_skipped_files_is_shortened(tmp_path: Path) -> None:
    shutil.copy(DIGITS / "four.png", tmp_path)
    for number in range(1205):
        (tmp_path / f"{number:04}.txt").touch()
    result = classify(tmp_path)
    assert result.stderr.startswith(f"1,205 files were skipped: {tmp_path / '0000.txt'}, ")
    assert result.stderr.endswith(f"{tmp_path / '0004.txt'} and 1,200 more\n")


def test_a_named_file_is_read_whatever_its_extension(tmp_path: Path) -> None:
    shutil.copy(DIGITS / "four.png", tmp_path / "picture.txt")
    shutil.copy(DIGITS / "five.png", tmp_path / "._five.png")
    result = classify(tmp_path / "picture.txt", tmp_path / "._five.png", "--json")
    assert best(result) == {"picture.txt": "four", "._five.png": "five"}
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.4")
    refused = classify(tmp_path / "notes.pdf")
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"Error: {tmp_path / 'notes.pdf'}: not a picture that Pillow can read.\n"
    )


def test_heic_without_its_decoder_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf")
    shutil.copy(DIGITS / "one.png", tmp_path)
    result = classify(tmp_path, "--top", "1")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path / 'a.heic'}: HEIC needs a decoder: pip install 'hfclip[heic]'.\n"
    )
    assert result.stdout.splitlines()[1].split()[0] == "one"
