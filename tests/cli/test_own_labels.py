"""`hfclip classify` with the labels and templates of the model."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import hfclip
from conversion.digits import WORDS
from hfclip.cli import main

SEVEN = str(Path(hfclip.__file__).parent / "digits" / "seven.png")
TEMPLATE = "a handwritten {}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a model with labels."""
    model, _ = hfclip.load("digits", "cpu")
    model.labels, model.templates = WORDS, (TEMPLATE,)
    folder = tmp_path_factory.mktemp("models") / "labelled"
    model.save_pretrained(folder)
    return folder


def classify(*arguments: object) -> Result:
    options = ["--no-label-cache", "--device", "cpu"]
    return CliRunner().invoke(main, ["classify", *map(str, arguments), *options])


def guesses(*arguments: object) -> list[dict[str, Any]]:
    result = classify(SEVEN, "--json", "--top", "99", *arguments)
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout)[0]["labels"])


def test_the_labels_and_the_template_of_the_model_are_used(folder: Path) -> None:
    found = guesses("--model", folder)
    assert found[0]["label"] == "seven"
    assert {each["label"] for each in found} == set(WORDS)
    given = ["--labels", ",".join(WORDS), "--template", TEMPLATE]
    assert found == guesses("--model", "digits", *given)
    others = ["--labels", ",".join(WORDS), "--template", "a photo of a {}"]
    assert found != guesses("--model", "digits", *others)


def test_options_replace_the_labels_or_the_template_of_the_model(folder: Path) -> None:
    found = guesses("--model", folder, "--labels", "one,seven")
    assert {each["label"] for each in found} == {"one", "seven"}
    expected = ["--labels", "one,seven", "--template", TEMPLATE]
    assert found == guesses("--model", "digits", *expected)
    found = guesses("--model", folder, "--template", "{}.")
    assert found == guesses("--model", "digits", "--labels", ",".join(WORDS), "--template", "{}.")


def test_a_model_without_labels_asks_for_them(tmp_path: Path) -> None:
    hfclip.load("digits", "cpu")[0].save_pretrained(tmp_path / "plain")
    result = classify(SEVEN, "--model", tmp_path / "plain")
    assert result.exit_code == 1
    assert (
        f"{tmp_path / 'plain'} has no labels of its own: no labels.json was read. Give --labels or "
        "--labels-file." in result.stderr
    )


def test_a_release_is_not_loaded_to_look_for_labels() -> None:
    result = classify(SEVEN, "--model", "ViT-L/14")
    assert result.exit_code == 2
    assert "ViT-L/14 has no labels of its own" in " ".join(result.stderr.split())
