"""`hfclip.LinearProbe`: fitting, ranking, and the files that it is saved in."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from digit_folder import digit, embed_digits, write_digits
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from small_collection import MANIFEST, lengthened, unit_rows, write_collection

import hfclip
from hfclip.errors import (
    ArgumentError,
    ConfigError,
    DataError,
    ImageError,
    LabelError,
    ShapeError,
)
from hfclip.probing.saved import FACTS_FILE, WEIGHTS_FILE


@pytest.fixture
def embeddings(tmp_path: Path) -> hfclip.Embeddings:
    return hfclip.Embeddings(write_collection(tmp_path / "out", unit_rows(40)))


@pytest.fixture
def labels(embeddings: hfclip.Embeddings) -> list[str]:
    """Returns three labels that the vectors determine."""
    return [
        ("low", "middle", "high")[int(x > -0.3) + int(x > 0.3)] for x in embeddings.vectors[:, 0]
    ]


@pytest.fixture
def probe(embeddings: hfclip.Embeddings, labels: list[str]) -> hfclip.LinearProbe:
    return hfclip.LinearProbe.fit(embeddings, labels, c=10.0)


def test_a_probe_is_the_logistic_regression_of_scikit_learn_on_the_vectors(
    probe: hfclip.LinearProbe, embeddings: hfclip.Embeddings, labels: list[str]
) -> None:
    model = LogisticRegression(C=10.0, max_iter=1000).fit(
        embeddings.vectors.astype(np.float64), labels
    )
    assert probe.labels == tuple(model.classes_) == ("high", "low", "middle")
    np.testing.assert_allclose(
        probe.probabilities(embeddings), model.predict_proba(embeddings.vectors), atol=1e-5
    )
    ranked = probe.rank(embeddings, top=2)
    assert [one[0].label for one in ranked] == model.predict(embeddings.vectors).tolist()
    assert [len(one) for one in ranked] == [2] * 40
    assert all(first.probability >= second.probability for first, second in ranked)


def test_vectors_and_slices_give_the_same_as_the_collection(
    probe: hfclip.LinearProbe, embeddings: hfclip.Embeddings
) -> None:
    expected = probe.rank(embeddings)
    assert probe.rank(embeddings.to_numpy()) == expected
    assert probe.rank(embeddings[5:9]) == expected[5:9]
    assert probe.rank(np.empty((0, 4), np.float32)) == []


def test_rows_without_a_label_are_not_used(
    embeddings: hfclip.Embeddings, labels: list[str]
) -> None:
    some = [label if place % 2 else None for place, label in enumerate(labels)]
    probe = hfclip.LinearProbe.fit(embeddings, some, c=10.0)
    half = hfclip.LinearProbe.fit(embeddings[1::2], labels[1::2], c=10.0)
    assert np.array_equal(probe.weight, half.weight)
    assert probe.facts["rows"] == 20


def test_without_c_it_is_searched_and_the_seed_decides(
    embeddings: hfclip.Embeddings, labels: list[str]
) -> None:
    probe = hfclip.LinearProbe.fit(embeddings, labels)
    again = hfclip.LinearProbe.fit(embeddings, labels)
    assert np.array_equal(probe.weight, again.weight)
    step = 8 * np.log10(probe.facts["c"])
    assert step == pytest.approx(round(step))
    assert probe.facts["rows"] == 40


def test_a_saved_probe_gives_the_same_probabilities_to_the_bit(
    probe: hfclip.LinearProbe, embeddings: hfclip.Embeddings, tmp_path: Path
) -> None:
    probe.save(tmp_path / "probe")
    assert sorted(path.name for path in (tmp_path / "probe").iterdir()) == [
        "probe.json",
        "probe.safetensors",
    ]
    loaded = hfclip.LinearProbe.load(tmp_path / "probe")
    assert loaded.labels == probe.labels
    assert loaded.facts == probe.facts
    assert loaded.manifest == replace(probe.manifest, sources=(), plan_digest="", inputs=0)
    assert np.array_equal(loaded.probabilities(embeddings), probe.probabilities(embeddings))


def test_the_files_are_safetensors_and_json_without_the_sources(
    probe: hfclip.LinearProbe, tmp_path: Path
) -> None:
    probe.save(tmp_path / "probe")
    tensors = load_file(tmp_path / "probe" / WEIGHTS_FILE)
    assert {name: (tensor.shape, str(tensor.dtype)) for name, tensor in tensors.items()} == {
        "weight": ((3, 4), "float32"),
        "bias": ((3,), "float32"),
    }
    facts = json.loads((tmp_path / "probe" / FACTS_FILE).read_text())
    assert facts["labels"] == ["high", "low", "middle"]
    assert facts["training"]["c"] == 10.0
    assert facts["model"]["sha256"] == MANIFEST.sha256
    assert facts["model"]["normalized"] is True
    assert facts["model"]["sources"] == []


def test_other_files_are_not_replaced_unasked(probe: hfclip.LinearProbe, tmp_path: Path) -> None:
    probe.save(tmp_path / "probe")
    with pytest.raises(ConfigError, match=r"already holds probe.json.*--force"):
        probe.save(tmp_path / "probe")
    probe.save(tmp_path / "probe", force=True)
    assert hfclip.LinearProbe.load(tmp_path / "probe").labels == probe.labels


def damaged(folder: Path, kind: str) -> None:
    """Damages the files of a probe."""
    facts = json.loads((folder / FACTS_FILE).read_text())
    if kind == "no facts":
        (folder / FACTS_FILE).unlink()
        return
    if kind == "no weights":
        (folder / WEIGHTS_FILE).unlink()
        return
    if kind == "weights":
        tensors = load_file(folder / WEIGHTS_FILE)
        save_file({**tensors, "bias": tensors["bias"] + 1}, folder / WEIGHTS_FILE)
        return
    changes = {
        "format": {"format": 2},
        "labels": {"labels": ["one", "two"]},
        "repeated": {"labels": ["one", "one", "two"]},
        "model": {"model": {**facts["model"], "dimension": "4"}},
        "training": {"training": None},
    }
    (folder / FACTS_FILE).write_text(json.dumps(facts | changes[kind]))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no facts", "not a folder that `hfclip probe` wrote"),
        ("no weights", "lacks probe.safetensors"),
        ("weights", "probe.safetensors has changed since probe.json was written"),
        ("format", "has the format 2; this version reads 1"),
        ("labels", r"has a weight \(3, 4\) and a bias \(3,\); expected \(2, 4\) and \(2,\)"),
        ("repeated", "is damaged: Labels occur more than once"),
        ("model", "is damaged: .*dimension is '4'"),
        ("training", "is damaged: it lacks training"),
    ],
)
def test_a_damaged_folder_is_refused_by_what_is_wrong(
    kind: str, message: str, probe: hfclip.LinearProbe, tmp_path: Path
) -> None:
    probe.save(tmp_path / "probe")
    damaged(tmp_path / "probe", kind)
    with pytest.raises(DataError, match=message):
        hfclip.LinearProbe.load(tmp_path / "probe")


def test_raw_collections_are_normalized_for_a_probe_on_normalized_vectors(
    probe: hfclip.LinearProbe, embeddings: hfclip.Embeddings, tmp_path: Path
) -> None:
    raw = hfclip.Embeddings(
        write_collection(tmp_path / "raw", lengthened(unit_rows(40)), normalized=False)
    )
    np.testing.assert_allclose(probe.probabilities(raw), probe.probabilities(embeddings), rtol=1e-4)
    with pytest.raises(ArgumentError, match="A vector has not length 1"):
        probe.probabilities(raw.vectors)


def test_a_probe_on_raw_vectors_refuses_normalized_ones(
    embeddings: hfclip.Embeddings, labels: list[str], tmp_path: Path
) -> None:
    raw = hfclip.Embeddings(
        write_collection(tmp_path / "raw", lengthened(unit_rows(40)), normalized=False)
    )
    probe = hfclip.LinearProbe.fit(raw, labels, c=1.0)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(raw.vectors.astype(np.float64), labels)
    np.testing.assert_allclose(
        probe.probabilities(raw), model.predict_proba(raw.vectors), atol=1e-5
    )
    with pytest.raises(DataError, match="trained on raw embeddings, and these are normalized"):
        probe.rank(embeddings)


def test_another_model_and_texts_are_refused(probe: hfclip.LinearProbe, tmp_path: Path) -> None:
    rows = unit_rows(5)
    other = hfclip.Embeddings(write_collection(tmp_path / "other", rows, sha256="1" * 64))
    with pytest.raises(DataError, match=r"embeddings of 'digits' .*0000.*, these are of .*1111"):
        probe.rank(other)
    texts = hfclip.Embeddings(write_collection(tmp_path / "texts", rows, kind="texts"))
    for use in (probe.rank, lambda one: hfclip.LinearProbe.fit(one, ["a", "b"] * 2 + ["a"])):
        with pytest.raises(DataError, match="a collection of texts; expected one of pictures"):
            use(texts)


def test_wrong_arguments_are_named(
    probe: hfclip.LinearProbe, embeddings: hfclip.Embeddings
) -> None:
    with pytest.raises(ShapeError, match=r"\(5, 3\); expected \(M, 4\)"):
        probe.rank(np.ones((5, 3), np.float32))
    with pytest.raises(ArgumentError, match="`top` is 0"):
        probe.rank(embeddings, 0)
    with pytest.raises(ArgumentError, match="There are 2 labels for 40 rows"):
        hfclip.LinearProbe.fit(embeddings, ["a", "b"])
    with pytest.raises(LabelError, match="There are 1 labels; expected two or more"):
        hfclip.LinearProbe.fit(embeddings, ["a", None] * 20)
    with pytest.raises(ArgumentError, match="c is 0; expected a positive number"):
        hfclip.LinearProbe.fit(embeddings, ["a", "b"] * 20, c=0)


def test_pictures_are_classified_as_their_embeddings(tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "digits", 60)
    out = embed_digits(folder, tmp_path / "out", "--dtype", "float32")
    embeddings = hfclip.Embeddings(out)
    labels = [key.split("/")[1] for key in embeddings.keys]
    hfclip.LinearProbe.fit(embeddings, labels, c=10.0).save(tmp_path / "probe")
    probe = hfclip.LinearProbe.load(tmp_path / "probe", device="cpu")
    paths = [tmp_path / key for key in embeddings.keys]
    found, expected = probe.rank_pictures(paths, 3), probe.rank(embeddings, 3)
    assert [[guess.label for guess in one] for one in found] == [
        [guess.label for guess in one] for one in expected
    ]
    np.testing.assert_allclose(
        [[guess.probability for guess in one] for one in found],
        [[guess.probability for guess in one] for one in expected],
        atol=1e-5,
    )
    digit(3).save(tmp_path / "new.png")
    with pytest.raises(ImageError, match=r"none\.png"):
        probe.rank_pictures([tmp_path / "new.png", tmp_path / "none.png"])
