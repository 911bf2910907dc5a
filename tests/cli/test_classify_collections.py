"""`hfclip classify` on the embeddings of collections instead of pictures."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from digit_folder import embed_digits, write_digits
from huggingface_hub import constants
from small_collection import Row, unit_rows, write_collection

import hfclip
from hfclip.cli import main
from hfclip.cli.collections import ranked
from hfclip.embedding.items import Item
from hfclip.images import reading
from hfclip.zeroshot.labels import Guess

LABELS = ("--labels", "zero,one,two,three,four,five,six,seven,eight,nine")
TEMPLATES = ("--template", "a handwritten {}", "--template", "the digit {}", "--device", "cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with 90 digits, a broken file, and three collections of them."""
    desk = tmp_path_factory.mktemp("desk")
    folder = write_digits(desk / "digits", 90)
    (folder / "zero/broken.png").write_bytes(b"broken")
    embed_digits(folder, desk / "half")
    embed_digits(folder, desk / "exact", "--dtype", "float32", "--preprocess", "exact")
    embed_digits(folder, desk / "raw", "--dtype", "float32", "--preprocess", "exact", "--raw")
    return desk


@pytest.fixture
def classify(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(desk)
    return lambda *arguments: CliRunner().invoke(main, ["classify", *map(str, arguments)])


def probabilities(result: Result) -> dict[str, dict[str, float]]:
    """Returns the probability of each label of each input that was read."""
    return {
        row["image"]: {guess["label"]: guess["probability"] for guess in row["labels"]}
        for row in json.loads(result.stdout)
        if "labels" in row
    }


@pytest.mark.parametrize(("out", "tolerance"), [("exact", 1e-5), ("raw", 1e-5), ("half", 0.02)])
def test_embeddings_get_the_probabilities_of_their_pictures(
    out: str, tolerance: float, classify: Callable[..., Result]
) -> None:
    arguments = (*LABELS, *TEMPLATES, "--json", "--top", 10)
    pictures = classify("digits", "--model", "digits", *arguments)
    with patch.object(reading, "open_picture", side_effect=AssertionError("a picture is read")):
        embedded = classify(out, *arguments)
    assert embedded.exit_code == pictures.exit_code == 1  # one file is broken
    expected, found = probabilities(pictures), probabilities(embedded)
    assert list(found) == list(expected)
    assert len(found) == 90
    for key, labels in expected.items():
        assert found[key] == pytest.approx(labels, abs=tolerance)
    right = sum(next(iter(labels)) == key.split("/")[1] for key, labels in found.items())
    assert right >= 88


def test_the_probabilities_of_exact_float32_vectors_are_those_of_the_classifier_to_the_bit(
    classify: Callable[..., Result], desk: Path
) -> None:
    found = probabilities(
        classify("exact", *LABELS, *TEMPLATES, "--json", "--top", 10, "--backend", "torch")
    )
    model, _ = hfclip.load("digits", device="cpu")
    classifier = hfclip.ZeroShotClassifier(
        model, LABELS[1].split(","), ["a handwritten {}", "the digit {}"]
    )
    embeddings = hfclip.Embeddings(desk / "exact")
    ranked = classifier.rank_features(torch.from_numpy(embeddings.to_numpy()))
    assert found == {
        key: {guess.label: guess.probability for guess in guesses}
        for key, guesses in zip(embeddings.keys, ranked, strict=True)
    }


def test_text_and_json_lines_have_the_form_of_pictures(classify: Callable[..., Result]) -> None:
    arguments = (*LABELS, *TEMPLATES, "--top", 2)
    rows = json.loads(classify("exact", *arguments, "--json").stdout)
    lines = classify("exact", *arguments, "--json-lines")
    assert [json.loads(line) for line in lines.stdout.splitlines()] == rows
    text = classify("exact", *arguments)
    first = rows[0]
    width = max(len(guess["label"]) for guess in first["labels"])
    assert text.stdout.splitlines()[:3] == [
        first["image"],
        *(f"  {one['label']:<{width}}  {one['probability']:7.2%}" for one in first["labels"]),
    ]


def test_inputs_without_an_embedding_are_reported_last(classify: Callable[..., Result]) -> None:
    result = classify("exact", *LABELS, *TEMPLATES)
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("Error: digits/zero/broken.png: ")
    assert errors[0].count("broken.png") == 1
    assert "1 of 91 could not be read." in result.stderr
    last = json.loads(classify("exact", *LABELS, *TEMPLATES, "--json").stdout)[-1]
    assert last["image"] == "digits/zero/broken.png"
    assert last["error"] == errors[0].removeprefix("Error: ")


def test_several_collections_are_classified_in_order(
    classify: Callable[..., Result], desk: Path, tmp_path: Path
) -> None:
    embed_digits(write_digits(tmp_path / "more", 5), tmp_path / "out")
    result = classify(tmp_path / "out", "exact", *LABELS, *TEMPLATES, "--json", "--top", 1)
    keys = list(probabilities(result))
    assert len(keys) == 95
    assert [key.split("/")[0] for key in keys] == ["more"] * 5 + ["digits"] * 90


def test_label_features_are_cached_as_for_pictures(
    classify: Callable[..., Result], home: Path
) -> None:
    first = classify("exact", *LABELS, *TEMPLATES, "--json")
    (entry,) = (home / "hfclip/labels").iterdir()
    with patch.object(hfclip.CLIP, "encode_text", side_effect=AssertionError("a label is encoded")):
        assert classify("exact", *LABELS, *TEMPLATES, "--json").stdout == first.stdout
        classify("digits", "--model", "digits", *LABELS, *TEMPLATES)
    assert [entry] == list((home / "hfclip/labels").iterdir())


def test_another_model_or_options_of_pictures_are_refused(
    classify: Callable[..., Result], desk: Path
) -> None:
    cases = {
        ("--model", "ViT-B/16"): (1, "--model is ViT-B/16, but exact was made with 'digits'"),
        ("--subfolder", "x"): (2, "Leave out --subfolder: the manifest of the collection says"),
        ("--no-auto-orient",): (2, "Leave out --auto-orient"),
        ("digits",): (2, "exact is a collection of embeddings and digits is not."),
    }
    for arguments, (status, message) in cases.items():
        result = classify("exact", *LABELS, *arguments)
        assert (result.exit_code, message in result.stderr) == (status, True), result.output
        assert result.stdout == ""
    same = classify("exact", *LABELS, *TEMPLATES, "--model", "digits")
    assert same.stdout == classify("exact", *LABELS, *TEMPLATES).stdout
    assert classify("exact", "--device", "cpu").exit_code == 2  # no labels


def test_a_copy_of_the_model_is_the_same_model(
    classify: Callable[..., Result], tmp_path: Path
) -> None:
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(Path(hfclip.__file__).parent / "digits", copy)
    model, _ = hfclip.load("digits", device="cpu")
    with torch.no_grad():
        model.ln_final.bias.add_(1)
    model.save_pretrained(other)
    found = classify("exact", *LABELS, *TEMPLATES, "--model", copy)
    assert found.stdout == classify("exact", *LABELS, *TEMPLATES).stdout
    refused = classify("exact", *LABELS, *TEMPLATES, "--model", other)
    assert refused.exit_code == 1
    assert "but exact was made with 'digits'" in refused.stderr


def test_collections_of_two_models_and_texts_are_refused(
    classify: Callable[..., Result], tmp_path: Path
) -> None:
    other = write_collection(tmp_path / "other", unit_rows(3))
    result = classify("exact", other, *LABELS)
    assert result.exit_code == 1
    assert f"{other} has embeddings of 'digits' (sha256 000000000000)" in result.stderr
    texts = write_collection(tmp_path / "texts", unit_rows(3), kind="texts")
    result = classify(texts, *LABELS)
    assert result.exit_code == 1
    assert "a collection of texts; expected one of pictures" in result.stderr


def test_a_zero_embedding_is_an_error_of_its_row(tmp_path: Path) -> None:
    rows = unit_rows(4)
    zero = Row(Item("photos/zero.jpg", None, None, 1, 0), np.zeros(4, np.float32))
    out = write_collection(tmp_path / "out", [*rows[:2], zero, *rows[2:]])
    embeddings = hfclip.Embeddings(out)
    results = list(ranked([embeddings], lambda some: [[Guess(key, 1.0)] for key in some.keys], 1))
    assert [name for name, _ in results] == list(embeddings.keys)
    for name, outcome in results:
        if name == "photos/zero.jpg":
            assert str(outcome) == "photos/zero.jpg: the embedding is zero"
        else:
            assert outcome == [Guess(name, 1.0)]


def test_a_folder_of_pictures_with_a_manifest_json_is_no_collection(
    classify: Callable[..., Result], tmp_path: Path
) -> None:
    folder = write_digits(tmp_path / "web", 3)
    (folder / "manifest.json").write_text('{"name": "a web page"}')
    result = classify(folder, "--model", "digits", *LABELS, *TEMPLATES, "--json")
    assert len(json.loads(result.stdout)) == 3
