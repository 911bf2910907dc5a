import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from huggingface_hub import constants

import hfclip
from hfclip.cli import encoding, main
from hfclip.cli.encoding import Encoders

DIGITS = Path(hfclip.__file__).parent / "digits"
WORDS = "zero,one,two,three,four,five,six,seven,eight,nine"
TEMPLATE = "a handwritten {}"


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path_factory.mktemp("home")))


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin)


def classify(*arguments: str, stdin: bytes | None = None) -> Result:
    common = ["--model", "digits", "--labels", WORDS, "--template", TEMPLATE]
    return run("classify", *arguments, *common, stdin=stdin)


@pytest.mark.parametrize("word", WORDS.split(","))
def test_every_bundled_picture_is_ranked_correctly(word: str) -> None:
    result = classify(str(DIGITS / f"{word}.png"), "--json")
    (row,) = json.loads(result.stdout)
    assert row["labels"][0]["label"] == word
    assert row["labels"][0]["probability"] > 0.5
    assert len(row["labels"]) == 5
    assert result.exit_code == 0


def test_the_output_shows_the_name_and_the_ranking() -> None:
    result = classify(str(DIGITS / "seven.png"), "--top", "2")
    name, first, second = result.stdout.splitlines()
    assert name == str(DIGITS / "seven.png")
    assert first.split()[0] == "seven"
    assert first.endswith("%")
    assert float(first.split()[1][:-1]) > float(second.split()[1][:-1])
    assert result.stderr == ""


@pytest.mark.parametrize("many", [1, 21], ids=["optimized", "as loaded"])
def test_results_of_many_pictures_keep_the_order_of_the_arguments(
    tmp_path: Path, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MANY_PICTURES", many)
    expected: list[tuple[str, str]] = []
    for copy in range(4):
        for word in ("three", "eight", "one", "six", "two"):
            name = f"{copy}-{len(expected):02}.png"
            (tmp_path / name).write_bytes((DIGITS / f"{word}.png").read_bytes())
            expected.append((str(tmp_path / name), word))
    rows = json.loads(classify(str(tmp_path), "--json").stdout)
    assert [(row["image"], row["labels"][0]["label"]) for row in rows] == expected


def test_the_model_is_optimized_for_many_pictures() -> None:
    model, _ = hfclip.load("digits", device="cpu")
    assert Encoders(model).for_pictures(63) is model
    assert repr(Encoders(model).for_pictures(64)).startswith("FastCLIP(ViT")
    assert Encoders(model.to("meta")).for_pictures(64) is model


def test_a_model_that_cannot_be_optimized_classifies_unoptimized() -> None:
    model, _ = hfclip.load("digits", device="cpu")
    with torch.no_grad():
        model.text_projection.fill_(float("nan"))
    assert Encoders(model).for_pictures(64) is model


def test_a_broken_picture_is_reported_and_the_others_are_classified(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "b.png").write_bytes((DIGITS / "four.png").read_bytes())
    text = classify(str(tmp_path), "missing.png")
    assert text.exit_code == 1
    assert text.stdout.splitlines()[1].split()[0] == "four"
    assert [line.split(":")[1].strip() for line in text.stderr.splitlines()] == [
        str(tmp_path / "a.png"),
        "missing.png",
    ]
    as_json = classify(str(tmp_path), "--json")
    assert as_json.exit_code == 1
    assert "not a picture" in json.loads(as_json.stdout)[0]["error"]


def test_a_picture_is_read_from_standard_input() -> None:
    result = classify("-", "--json", stdin=(DIGITS / "nine.png").read_bytes())
    assert json.loads(result.stdout)[0]["labels"][0]["label"] == "nine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["classify", "x.png", "--labels", "a,b", "--model", "ViT-B-16"],
            "Did you mean 'ViT-B/16'",
        ),
        (["classify", "x.png", "--labels", "a,,b", "--model", "digits"], "no empty label"),
        (["inspect", "nowhere.pt"], "nowhere.pt not found"),
    ],
)
def test_an_error_is_one_message_with_status_one(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_models_lists_the_nine_and_the_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HFCLIP_NAMESPACE", raising=False)
    rows = json.loads(run("models", "--json").stdout)
    assert [row["name"] for row in rows] == [*hfclip.available_models(), "digits"]
    assert rows[5]["parameters"] == 151_277_313
    assert rows[9]["origin"] == "bundled with hfclip"
    pinned = {row["name"]: row["pinned"] for row in rows}
    assert pinned["RN50x4"] == "hash only"
    assert {name for name in pinned if pinned[name] == "no"} == {"RN101", "RN50x16", "RN50x64"}
    assert list(pinned.values()).count("yes") == 6
    text = run("models").stdout.splitlines()
    assert text[6].split("  ")[0] == "ViT-B/32"
    assert "ViT, 12 blocks of width 768, patch 32" in text[6]


def test_inspect_describes_a_file() -> None:
    facts = json.loads(run("inspect", "digits", "--json").stdout)
    assert facts["format"] == "safetensors file"
    assert facts["bytes"] == (DIGITS / "model.safetensors").stat().st_size
    assert facts["parameters"] == 4_099_905
    assert facts["tensors"] == {"float16": 86}
    assert len(facts["sha256"]) == 64
    assert "parameters     4,099,905" in run("inspect", "digits").stdout


def test_help_and_models_do_not_import_torch() -> None:
    code = (
        "import sys, hfclip, hfclip.cli\n"
        "for arguments in (['--help'], ['classify', '--help'], ['models']):\n"
        "    hfclip.cli.main(arguments, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "hfclip classify cat.jpg" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "stdout", "stderr"),
    [
        (["--help"], 0, "Usage: hfclip [OPTIONS] COMMAND", ""),
        (["verify", "digits"], 0, "digits  sha256 ", ""),
        (["verify"], 2, "", "Usage: hfclip verify "),
        (["inspect", "nowhere.pt"], 1, "", "Error: Model nowhere.pt not found"),
    ],
)
def test_the_package_runs_as_a_module(
    arguments: list[str], status: int, stdout: str, stderr: str, python: Path
) -> None:
    result = subprocess.run(
        [python, "-m", "hfclip", *arguments], check=False, capture_output=True, text=True
    )
    assert result.returncode == status
    assert result.stdout.startswith(stdout)
    assert result.stderr.startswith(stderr)
