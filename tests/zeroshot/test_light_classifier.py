"""Zero-shot classification in NumPy gives the results of torch, and shares its label cache."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import quickly_drawn
from huggingface_hub import constants

import hfclip
from hfclip.errors import ArgumentError, LabelError
from hfclip.hub import integrity
from hfclip.layouts.files import Source
from hfclip.light.loading import load_source
from hfclip.releases import RELEASES
from hfclip.sources.find import find
from hfclip.zeroshot.shared import read_shared, shared_key, write_shared
from hfclip.zeroshot.without_torch import LightClassifier, label_features

LABELS = ("six", "seven", "a dog; a cat & a caf\u00e9", "an extremely long label, " * 6)
TEMPLATES = ("a photo of a {}", "the {}")
SEVEN = Path(hfclip.__file__).parent / "digits" / "seven.png"


@pytest.fixture(scope="module", params=["digits", "ViT-B/32"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns the bundled model, or a ViT-B/32 of full width with one block in each tower."""
    if request.param == "digits":
        return "digits"
    config = replace(RELEASES["ViT-B/32"].config, vision_layers=1, transformer_layers=1)
    folder = tmp_path_factory.mktemp("shallow")
    quickly_drawn(lambda: hfclip.CLIP(**config.to_dict())).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_probabilities_and_ranks_are_those_of_torch(saved: Any) -> None:
    model, _ = hfclip.load(saved, device="cpu")
    light, preprocess = load_source(find(saved))
    labels = [*LABELS, *(f"label {number}" for number in range(300))]
    theirs = hfclip.ZeroShotClassifier(model, labels, TEMPLATES)
    features = label_features(light, labels, TEMPLATES)
    np.testing.assert_allclose(features, theirs.weights.t().numpy(), rtol=0, atol=1e-5)
    ours = LightClassifier(light, labels, features)
    pixels = np.stack([preprocess(SEVEN)] * 2)
    pixels[1] = pixels[1, :, ::-1]
    expected = theirs.rank(torch.from_numpy(pixels))
    found = ours.rank(pixels)
    for one, other in zip(found, expected, strict=True):
        assert [guess.label for guess in one[:5]] == [guess.label for guess in other[:5]]
        assert dict(one) == pytest.approx(dict(other), abs=1e-5)
    assert ours.rank(pixels, top=2) == [row[:2] for row in found]
    vectors = np.random.default_rng(1).standard_normal((6, light.config.embed_dim))
    rows = vectors.astype(np.float32)
    expected = theirs.rank_features(torch.from_numpy(rows), 3)
    assert [[guess.label for guess in row] for row in ours.rank_features(rows, 3)] == [
        [guess.label for guess in row] for row in expected
    ]


def test_batches_of_captions_are_reported() -> None:
    light, _ = load_source(find("digits"))
    counts: list[int] = []
    label_features(light, [f"{number}" for number in range(300)], ["{}"], counts.append)
    assert counts == [256, 44]


def test_labels_and_the_number_of_answers_are_checked() -> None:
    light, preprocess = load_source(find("digits"))
    features = label_features(light, ["six", "seven"], ["{}"])
    with pytest.raises(LabelError, match="more than once"):
        LightClassifier(light, ["six", "six"], features)
    with pytest.raises(ArgumentError, match="expected at least 1"):
        LightClassifier(light, ["six", "seven"], features).rank(preprocess(SEVEN)[None], 0)


def verified(source: Source) -> Source:
    """Records the hash of the weights, as for a file of the Hub's cache."""
    digest = integrity.Digest("sha256", integrity.compute(source.weights, "sha256"))
    assert integrity.matches(source.weights, digest)
    return source


def test_the_key_of_shared_features_names_all_that_changes_them() -> None:
    assert shared_key(find("digits"), LABELS, TEMPLATES) is None  # no hash is recorded
    source = verified(find("digits"))
    assert source.config is not None
    keys = [
        shared_key(source, LABELS, TEMPLATES),
        shared_key(source, LABELS[::-1], TEMPLATES),
        shared_key(source, LABELS, TEMPLATES[:1]),
        shared_key(replace(source, config=replace(source.config, activation="gelu")), LABELS, ()),
    ]
    assert len({key for key in keys if key}) == 4
    assert shared_key(source, list(LABELS), list(TEMPLATES)) == keys[0]
    assert shared_key(replace(source, config=None), LABELS, TEMPLATES) is None


def test_the_key_of_shared_features_names_the_weights(tmp_path: Path) -> None:
    keys = []
    for seed in (1, 2):
        model, _ = hfclip.load("digits", device="cpu")
        with torch.no_grad():
            model.text_projection[0, 0] += seed
        model.save_pretrained(tmp_path / f"{seed}")
        keys.append(shared_key(verified(find(tmp_path / f"{seed}")), LABELS, TEMPLATES))
    assert keys[0] != keys[1]


def test_shared_features_are_read_as_they_were_written(home: Path) -> None:
    features = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    assert read_shared("0" * 64) is None
    write_shared("0" * 64, features)
    found = read_shared("0" * 64)
    assert found is not None
    assert np.array_equal(found, features)
    (path,) = (home / "hfclip/labels").iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert read_shared("0" * 64) is None
    path.write_bytes(b"no file of safetensors")
    assert read_shared("0" * 64) is None
