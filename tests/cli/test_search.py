"""`hfclip search` on the digits of scikit-learn, on captions, tars and tables."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from click.testing import CliRunner, Result
from collection import write_tar
from PIL import Image
from pyarrow import parquet
from sklearn.datasets import load_digits

import hfclip
from conversion.digits import WORDS
from hfclip.cli import main

Search = Callable[..., Result]


def hfclip_command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def embed(*arguments: object) -> None:
    result = hfclip_command("embed", *arguments, "--model", "digits", "--device", "cpu")
    assert result.exit_code == 0, result.output


def digit(number: int) -> Image.Image:
    pixels = load_digits().images[number]
    return Image.fromarray((pixels * 255 / 16).round().astype("uint8"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the 1,797 digits, named by their word, and their embeddings."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "digits").mkdir()
    data = load_digits()
    for number, (pixels, target) in enumerate(zip(data.images, data.target, strict=True)):
        image = Image.fromarray((pixels * 255 / 16).round().astype("uint8"))
        image.save(desk / "digits" / f"{WORDS[target]}-{number:04}.png")
    earlier = Path.cwd()
    os.chdir(desk)
    try:
        embed("digits", "-o", "out")
    finally:
        os.chdir(earlier)
    return desk


@pytest.fixture
def search(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Returns a function that searches the digits and returns the result of the command."""
    monkeypatch.chdir(desk)
    return lambda *arguments: hfclip_command("search", "out", *arguments, "--device", "cpu")


def found(result: Result) -> list[str]:
    """Returns the words of the results of --json."""
    assert result.exit_code == 0, result.output
    return [
        row["key"].removeprefix("digits/").partition("-")[0] for row in json.loads(result.stdout)
    ]


@pytest.mark.parametrize("word", ["seven", "zero", "four"])
def test_a_text_finds_its_digits(word: str, search: Search) -> None:
    words = found(search(f"a handwritten {word}", "--json", "--top", 100))
    assert len(words) == 100
    assert words.count(word) >= 95


def test_json_has_keys_and_scores_best_first_and_nothing_else(search: Search, desk: Path) -> None:
    result = search("a handwritten seven", "--json", "--top", 7)
    rows = json.loads(result.stdout)
    assert [set(row) for row in rows] == [{"key", "score"}] * 7
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    model, preprocess = hfclip.load("digits", device="cpu", preprocess="fast")
    pictures = hfclip.embed_images(model, preprocess, [desk / row["key"] for row in rows])
    text = hfclip.embed_texts(model, ["a handwritten seven"])[0]
    np.testing.assert_allclose([row["score"] for row in rows], pictures @ text, atol=1e-3)


def test_the_5_best_are_the_first_5_of_the_15_best(search: Search) -> None:
    for query in (["a handwritten two"], ["--like", "digits/nine-0009.png"]):
        most = json.loads(search(*query, "--json", "--top", 15).stdout)
        assert json.loads(search(*query, "--json", "--top", 5).stdout) == most[:5]


def test_text_output_has_a_line_for_each_result(search: Search) -> None:
    result = search("a handwritten seven", "--top", 2)
    rows = json.loads(search("a handwritten seven", "--top", 2, "--json").stdout)
    assert result.stdout.splitlines() == [f"{row['score']:7.4f}  {row['key']}" for row in rows]


def test_a_picture_finds_its_like(search: Search, tmp_path: Path) -> None:
    Image.open(Path(hfclip.__file__).parent / "digits/three.png").save(tmp_path / "query.png")
    words = found(search("--image", tmp_path / "query.png", "--json", "--top", 50))
    assert words.count("three") >= 48


def test_a_key_finds_its_like_and_not_itself(search: Search) -> None:
    result = search("--like", "digits/one-0001.png", "--json", "--top", 50)
    assert found(result).count("one") >= 48
    assert "digits/one-0001.png" not in result.stdout


def test_texts_are_weighed(search: Search) -> None:
    both = ["a handwritten seven", "a handwritten one", "--json", "--top", 100]
    counts = [found(search(*both, "--weights", weights)).count("one") for weights in ("1,0", "0,1")]
    assert counts[0] <= 5
    assert counts[1] >= 95
    equal = found(search(*both))
    assert equal == found(search(*both, "--weights", "2,2"))
    assert 0 < equal.count("one") < 100
    away = found(search(*both, "--weights=-1,1"))
    assert away.count("seven") == 0


def test_without_leaves_out_what_a_text_describes(search: Search) -> None:
    both = ["a handwritten seven", "a handwritten one", "--json", "--top", 100]
    assert found(search(*both)).count("one") > 20
    assert found(search(*both, "--without", "a handwritten one")).count("one") == 0


def test_a_template_is_filled_with_the_text(search: Search) -> None:
    plain = search("a handwritten seven", "--json").stdout
    assert search("seven", "--template", "a handwritten {}", "--json").stdout == plain
    result = search("seven", "--template", "a photo")
    assert result.exit_code == 1
    assert "has no {}" in result.stderr


def test_low_scores_are_left_out(search: Search) -> None:
    rows = json.loads(search("a handwritten seven", "--json", "--top", 100).stdout)
    lowest = rows[40]["score"]
    result = search("a handwritten seven", "--json", "--top", 100, "--min-score", lowest - 1e-6)
    assert json.loads(result.stdout) == rows[: len(json.loads(result.stdout))]
    assert 41 <= len(json.loads(result.stdout)) < 100
    none = search("a handwritten seven", "--min-score", 0.99)
    assert (none.exit_code, none.stdout) == (0, "")
    assert "No result" in none.stderr
    assert search("a handwritten seven", "--min-score", 0.99, "--json").stdout == "[]\n"


def test_a_sheet_and_copies_show_the_results(search: Search, desk: Path, tmp_path: Path) -> None:
    sheet, folder = tmp_path / "sheet.png", tmp_path / "found"
    result = search("a handwritten seven", "--top", 3, "--sheet", sheet, "--copy-to", folder)
    assert result.exit_code == 0, result.output
    keys = [line.split()[1] for line in result.stdout.splitlines()]
    with Image.open(sheet) as image:
        assert image.width > 3 * 224
    copies = sorted(folder.iterdir())
    assert [path.name for path in copies] == [
        f"{rank:02}-{Path(key).name}" for rank, key in enumerate(keys, 1)
    ]
    for path, key in zip(copies, keys, strict=True):
        assert path.read_bytes() == (desk / key).read_bytes()
    again = search("a handwritten seven", "--copy-to", folder)
    assert again.exit_code == 1
    assert "nothing is replaced" in again.stderr


def test_a_picture_that_is_gone_has_a_place_on_the_sheet_and_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("few").mkdir()
    for number in range(3):
        digit(number).save(f"few/{number}.png")
    embed("few", "-o", "out")
    Path("few/1.png").unlink()
    query = ["search", "out", "--like", "few/0.png"]
    result = hfclip_command(*query, "--sheet", "sheet.png", "--json")
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)) == 2
    assert "Error: few/1.png" in result.stderr
    assert Path("sheet.png").exists()
    result = hfclip_command(*query, "--copy-to", "found")
    assert result.exit_code == 1
    assert len(list(Path("found").iterdir())) == 1


def test_pictures_in_tars_and_tables_are_found_drawn_and_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        digit(number).save(f"{number}.png")
    contents = [Path(f"{number}.png").read_bytes() for number in range(6)]
    members = [(f"{number}.png", contents[number]) for number in range(3)]
    write_tar(Path("shard.tar"), [*members, ("0.txt", b"a zero")])
    images = [{"bytes": content, "path": None} for content in contents[3:]]
    parquet.write_table(pyarrow.table({"image": images}), "table.parquet")
    embed("shard.tar", "table.parquet", "-o", "out")
    result = hfclip_command(
        *("search", "out", "a handwritten zero", "--json", "--sheet", "sheet.png"),
        *("--copy-to", "found"),
    )
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert rows[0]["key"] == "shard.tar/0"
    assert rows[0]["caption"] == "a zero"
    assert {row["key"] for row in rows} == {
        *(f"shard.tar/{number}" for number in range(3)),
        *(f"table.parquet:{row}" for row in range(1, 4)),
    }
    copies = sorted(Path("found").iterdir())
    assert copies[0].name == "01-0.png"
    assert copies[0].read_bytes() == contents[0]
    assert {path.read_bytes() for path in copies} == set(contents)


def test_texts_find_texts_and_captions_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"a handwritten {word}" for word in WORDS]
    Path("texts.txt").write_text("\n".join(lines) + "\n")
    embed("texts.txt", "--text", "-o", "out")
    result = hfclip_command("search", "out", "a handwritten seven", "--top", 1)
    score, rest = result.stdout.split(maxsplit=1)
    assert float(score) == pytest.approx(1, abs=5e-4)
    assert rest == "texts.txt:8  a handwritten seven\n"
    for option in ("--sheet", "--copy-to"):
        result = hfclip_command("search", "out", "seven", option, "x.png")
        assert result.exit_code == 2
        assert "a collection of texts" in result.stderr
    assert not Path("x.png").exists()


def test_errors_say_what_to_do(search: Search, tmp_path: Path) -> None:
    cases = {
        ("--like", "seven-0007.png"): (1, "Similar keys: 'digits/seven-0007.png'"),
        (): (2, "Give a QUERY"),
        ("word " * 90,): (1, "the model reads 77"),
        ("--image", "none.png"): (1, "none.png: no such file"),
        ("seven", "--weights", "1,a"): (2, "expected numbers such as 1,0.5"),
        ("seven", "--weights", "1,2"): (1, "2 weights for 1 queries"),
        ("seven", "--without", "seven"): (1, "Nothing of the query remains"),
        ("seven", "--sheet", "sheet.txt"): (1, "ends in .png"),
    }
    for arguments, (status, message) in cases.items():
        result = search(*arguments)
        assert (result.exit_code, message in result.stderr) == (status, True), result.output
        assert result.stdout == ""
    result = hfclip_command("search", tmp_path, "seven")
    assert result.exit_code == 1
    assert "manifest.json cannot be read" in result.stderr


def test_another_model_is_refused(search: Search, desk: Path) -> None:
    manifest = desk / "out/manifest.json"
    content = manifest.read_text()
    try:
        manifest.write_text(json.dumps(json.loads(content) | {"sha256": "0" * 64}))
        result = search("a handwritten seven")
        assert result.exit_code == 1
        assert "are not those that made the embeddings" in result.stderr
        assert search("--like", "digits/one-0001.png").exit_code == 0
    finally:
        manifest.write_text(content)


def test_a_search_for_a_key_imports_no_torch(search: Search, desk: Path) -> None:
    search("--like", "digits/one-0001.png")
    code = (
        "import sys; from hfclip.cli import main\n"
        "main(['search', 'out', '--like', 'digits/one-0001.png'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=desk)
