"""`--backend`: NumPy and torch give the same answers, and share the label cache."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from digit_folder import embed_digits, write_digits
from huggingface_hub import constants

import hfclip
from hfclip.cli import main
from hfclip.embedding.identity import config_digest
from hfclip.embedding.manifest import read_manifest
from hfclip.errors import ArgumentError, DataError
from hfclip.hub import integrity
from hfclip.light import LightCLIP

DIGITS = Path(hfclip.__file__).parent / "digits"
LABELS = ("--labels", "zero,one,two,seven,eight", "--template", "the digit {}")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with 40 digits, a broken picture, and a collection of them."""
    folder = tmp_path_factory.mktemp("backends")
    pictures = write_digits(folder / "digits", 40)
    embed_digits(pictures, folder / "out")
    (pictures / "broken.png").write_bytes(b"broken")
    return folder


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the number of captions of each call of NumPy's text tower."""
    counts: list[int] = []
    encode: Callable[..., Any] = LightCLIP.encode_text

    def spy(model: LightCLIP, ids: Any) -> Any:
        counts.append(len(ids))
        return encode(model, ids)

    monkeypatch.setattr(LightCLIP, "encode_text", spy)
    return counts


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def rows(*arguments: object) -> list[dict[str, Any]]:
    return list(json.loads(run(*arguments, "--json").stdout))


def check_equal(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Checks labels, their order and their probabilities, and errors."""
    assert [row["image"] for row in found] == [row["image"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.get("error") == other.get("error")
        guesses, others = one.get("labels", []), other.get("labels", [])
        assert [guess["label"] for guess in guesses] == [guess["label"] for guess in others]
        probabilities = [guess["probability"] for guess in guesses]
        assert probabilities == pytest.approx([o["probability"] for o in others], abs=1e-5)


def test_pictures_get_the_same_labels(folder: Path) -> None:
    command = ("classify", folder / "digits", "--model", "digits", *LABELS, "--no-label-cache")
    found, expected = (rows(*command, "--backend", name) for name in ("numpy", "torch"))
    assert len(found) == 41
    assert sum("error" in row for row in found) == 1
    check_equal(found, expected)


def test_embeddings_get_the_same_labels(folder: Path) -> None:
    command = ("classify", folder / "out", *LABELS, "--no-label-cache")
    found, expected = (rows(*command, "--backend", name) for name in ("numpy", "torch"))
    assert len(found) == 40
    check_equal(found, expected)


def test_auto_rotates_pictures_as_the_option_says(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    image = Image.open(DIGITS / "seven.png").convert("RGB")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    for option in ("--auto-orient", "--no-auto-orient"):
        command = ("classify", tmp_path / "turned.png", "--model", "digits", *LABELS, option)
        check_equal(*(rows(*command, "--backend", name) for name in ("numpy", "torch")))


def test_a_search_finds_the_same_rows(folder: Path) -> None:
    query = ("search", folder / "out", "the digit seven", "--without", "the digit two")
    found, expected = (rows(*query, "--backend", name) for name in ("numpy", "torch"))
    assert [row["key"] for row in found] == [row["key"] for row in expected]
    scores = [row["score"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx(scores, abs=1e-5)
    assert len(set(scores)) == 10


def test_templates_are_averaged_alike(folder: Path) -> None:
    searchers = [hfclip.Searcher(folder / "out", backend=name) for name in ("numpy", "torch")]
    found, expected = (
        searcher.search(["seven", "two"], weights=[1, 0.5], templates=["the {}", "a {}"])
        for searcher in searchers
    )
    assert [hit.row for hit in found] == [hit.row for hit in expected]
    np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], atol=1e-5)


def test_a_picture_as_a_query_needs_torch(folder: Path, encoded: list[int]) -> None:
    searcher = hfclip.Searcher(folder / "out", backend="numpy")
    with pytest.raises(ArgumentError, match="The backend numpy reads no pictures"):
        searcher.search(images=[DIGITS / "seven.png"])
    mixed = hfclip.Searcher(folder / "out").search("seven", images=[DIGITS / "seven.png"])
    assert len(mixed) == 10
    assert encoded == []  # one model encodes both


def test_a_searcher_loads_one_model_for_many_searches(folder: Path, encoded: list[int]) -> None:
    searcher = hfclip.Searcher(folder / "out")
    searcher.search("seven")
    model = searcher._text_model
    searcher.search(["seven", "eight"])
    assert searcher._text_model is model
    assert encoded == [1, 1, 1]
    assert "_loaded" not in vars(searcher)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_changed_weights_or_configurations_are_refused(
    folder: Path, tmp_path: Path, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = hfclip.load("digits", device="cpu")
    model.save_pretrained(tmp_path / "model")
    pictures = write_digits(tmp_path / "digits", 3)
    embed_digits(pictures, tmp_path / "out", "--model", str(tmp_path / "model"))
    searcher = hfclip.Searcher(tmp_path / "out", backend=backend)
    config = tmp_path / "model/config.json"
    config.write_text(config.read_text().replace("quick_gelu", "gelu"))
    with pytest.raises(DataError, match="has changed since it made the embeddings"):
        searcher.search("seven")
    model.logit_scale.data += 1
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(DataError, match="are not those that made the embeddings"):
        hfclip.Searcher(tmp_path / "out", backend=backend).search("seven")


def test_the_digest_of_a_configuration_is_that_of_the_manifest(folder: Path) -> None:
    config = hfclip.ClipConfig.from_json(DIGITS / "config.json")
    assert read_manifest(folder / "out").config_digest == config_digest(config)


@pytest.mark.parametrize("first", ["numpy", "torch"])
def test_numpy_encodes_labels_of_verified_weights_once(
    first: str, home: Path, encoded: list[int]
) -> None:
    weights = DIGITS / "model.safetensors"
    digest = integrity.Digest("sha256", integrity.compute(weights, "sha256"))
    assert integrity.matches(weights, digest)
    command = ("classify", DIGITS / "seven.png", "--model", "digits", *LABELS, "--backend")
    before = rows(*command, first)
    assert encoded == ([5] if first == "numpy" else [])
    check_equal(rows(*command, "numpy"), before)
    assert encoded == ([5] if first == "numpy" else [])
    rows(*command, "numpy", "--no-label-cache")
    assert encoded == ([5, 5] if first == "numpy" else [5])
    assert len(list((home / "hfclip/labels").iterdir())) == (1 if first == "numpy" else 2)


def test_torch_does_not_read_the_features_of_numpy(home: Path) -> None:
    weights = DIGITS / "model.safetensors"
    digest = integrity.Digest("sha256", integrity.compute(weights, "sha256"))
    assert integrity.matches(weights, digest)
    command = ("classify", DIGITS / "seven.png", "--model", "digits", *LABELS, "--backend")
    expected = rows(*command, "torch", "--no-label-cache")
    rows(*command, "numpy")
    assert rows(*command, "torch") == expected


def test_labels_of_a_fine_tuned_model_are_used_by_numpy(tmp_path: Path) -> None:
    model, _ = hfclip.load("digits", device="cpu")
    model.labels, model.templates = ("six", "seven"), ("the digit {}",)
    model.save_pretrained(tmp_path / "own")
    command = ("classify", DIGITS / "seven.png", "--model", tmp_path / "own", "--backend")
    found, expected = (rows(*command, name) for name in ("numpy", "torch"))
    assert found[0]["labels"][0]["label"] == "seven"
    check_equal(found, expected)


def test_numpy_refuses_what_it_cannot_compute(tmp_path: Path) -> None:
    import torch

    model, _ = hfclip.load("digits", device="cpu")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    command = ("classify", DIGITS / "seven.png", *LABELS, "--backend", "numpy")
    refused = run(*command, "--model", tmp_path / "model.pt", "--base", "digits")
    assert refused.exit_code == 1
    assert "only safetensors files are read" in refused.stderr
    assert refused.stderr.count("\n") == 1
    silent = run(*command[:-1], "auto", "--model", tmp_path / "model.pt", "--base", "digits")
    assert (silent.exit_code, silent.stderr) == (0, "")
    device = run(*command, "--model", "digits", "--device", "cuda")
    assert "NumPy computes on the CPU, and the device is cuda" in device.stderr
