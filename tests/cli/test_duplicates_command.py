"""`hfclip duplicates`: groups, pairs, identical files and the sheet."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from small_collection import Row, write_collection

from hfclip.cli import main
from hfclip.data.references import FileImage
from hfclip.embedding.items import Item

# Angles in degrees: the cosine of 10 degrees is 0.9848, of 5 degrees 0.9962, of 15 degrees 0.9659.
ANGLES = {"a": 0, "b": 90, "c": 10, "d": 5, "e": 180, "f": 0, "g": 95, "h": 15}


def row_of(name: str, angle: float, folder: Path) -> Row:
    path = folder / f"{name}.png"
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (30, 20), (int(angle), 0, 0)).save(path)
    radians = np.radians(angle)
    vector = np.array([np.cos(radians), np.sin(radians), 0, 0], np.float32)
    return Row(Item(f"photos/{name}.png", FileImage(str(path)), None, 1, 0), vector)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Returns a collection of which the first and the sixth picture have the same bytes."""
    rows = [row_of(name, angle, tmp_path / "photos") for name, angle in ANGLES.items()]
    out = write_collection(tmp_path / "out", rows, part_size=5)
    _same_content(out, (0, 0), (1, 0))
    return out


def _same_content(out: Path, source: tuple[int, int], copy: tuple[int, int]) -> None:
    """Gives two rows, each named by its part and its row there, the same digest."""
    paths = [out / f".hfclip/content/part-{part:05}.sha256" for part, _ in (source, copy)]
    first, second = (bytearray(path.read_bytes()) for path in paths)
    second[32 * copy[1] : 32 * copy[1] + 32] = first[32 * source[1] : 32 * source[1] + 32]
    paths[1].write_bytes(second)


def duplicates(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["duplicates", *map(str, arguments)])


def test_each_group_lists_what_is_similar_to_its_first(out: Path) -> None:
    result = duplicates(out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == (
        "photos/a.png\n"
        "  1.0000  photos/f.png  identical to photos/a.png\n"
        "  0.9962  photos/d.png\n"
        "  0.9848  photos/c.png\n"
        "\n"
        "photos/b.png\n"
        "  0.9962  photos/g.png\n"
    )
    assert "2 groups with 4 near-duplicates of their first, among 8; 9 pairs" in result.stderr


def test_the_json_is_an_array_of_groups(out: Path) -> None:
    groups = json.loads(duplicates(out, "--json").stdout)
    assert groups == [
        [
            {"key": "photos/a.png", "score": 1.0},
            {"key": "photos/f.png", "score": 1.0, "identical_to": "photos/a.png"},
            {"key": "photos/d.png", "score": 0.996195},
            {"key": "photos/c.png", "score": 0.984808},
        ],
        [{"key": "photos/b.png", "score": 1.0}, {"key": "photos/g.png", "score": 0.996195}],
    ]


def test_copies_of_a_later_picture_are_named(out: Path) -> None:
    _same_content(out, (0, 3), (0, 2))
    [first, *_] = json.loads(duplicates(out, "--json").stdout)
    assert [member.get("identical_to") for member in first] == [
        None,
        "photos/a.png",
        None,
        "photos/d.png",
    ]


def test_pictures_of_unknown_content_are_not_identical(out: Path) -> None:
    path = out / ".hfclip/content/part-00001.sha256"
    path.write_bytes(bytes(path.stat().st_size))
    assert "identical" not in duplicates(out).stdout
    path.unlink()
    result = duplicates(out)
    assert result.exit_code == 0
    assert "  1.0000  photos/f.png\n" in result.stdout


def test_pairs_are_listed_most_similar_first(out: Path) -> None:
    result = duplicates(out, "--pairs", "--limit", "3")
    first, *others = result.stdout.splitlines()
    assert first == "1.0000  photos/a.png  photos/f.png"
    assert [line.split()[0] for line in others] == ["0.9962", "0.9962"]  # of 5 equal ones
    assert "The 3 most similar pairs are listed." in result.stderr
    pairs: list[dict[str, Any]] = json.loads(duplicates(out, "--pairs", "--json").stdout)
    assert len(pairs) == 9
    assert pairs[0] == {"first": "photos/a.png", "second": "photos/f.png", "score": 1.0}
    assert {pair["score"] for pair in pairs[1:]} == {0.996195, 0.984808}


def test_a_higher_threshold_finds_less(out: Path) -> None:
    groups = json.loads(duplicates(out, "--threshold", "1", "--json").stdout)
    assert [[member["key"] for member in group] for group in groups] == [
        ["photos/a.png", "photos/f.png"]
    ]


def test_nothing_similar_is_an_empty_array_and_no_sheet(tmp_path: Path) -> None:
    rows = [row_of(name, angle, tmp_path / "photos") for name, angle in (("a", 0), ("b", 90))]
    out = write_collection(tmp_path / "out", rows)
    result = duplicates(out, "--json", "--sheet", tmp_path / "sheet.png")
    assert json.loads(result.stdout) == []
    assert result.exit_code == 0
    assert "not written" in result.stderr
    assert not (tmp_path / "sheet.png").exists()


def test_the_sheet_shows_each_group_in_a_row(out: Path, tmp_path: Path) -> None:
    result = duplicates(out, "--sheet", tmp_path / "sheet.png")
    assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 24) or []}
    reds = {angle for name, angle in ANGLES.items() if name not in "eha"}
    assert {(red, 0, 0) for red in reds} <= colours  # "a" and "f" are the same picture
    assert (180, 0, 0) not in colours
    assert (15, 0, 0) not in colours


def test_a_large_group_is_shortened_on_the_sheet(tmp_path: Path) -> None:
    rows = [row_of(f"{number:03}", 0, tmp_path / "photos") for number in range(40)]
    out = write_collection(tmp_path / "out", rows)
    assert duplicates(out, "--sheet", tmp_path / "sheet.png").exit_code == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height < 5 * 300


def test_a_sheet_of_texts_and_a_wrong_threshold_are_refused(tmp_path: Path) -> None:
    rows = [row_of(name, 0, tmp_path / "photos") for name in "ab"]
    out = write_collection(tmp_path / "out", rows, kind="texts")
    result = duplicates(out, "--sheet", tmp_path / "sheet.png")
    assert (result.exit_code, "collection of texts" in result.stderr) == (2, True)
    assert duplicates(out, "--threshold", "1.2").exit_code == 2
    assert duplicates(out).exit_code == 0
