"""A probe beside zero-shot classification, on the digits of scikit-learn."""

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from digit_folder import embed_digits, write_digits
from sklearn.linear_model import LogisticRegression
from small_collection import unit_rows, write_collection

import hfclip
from hfclip.embedding.part_files import digest_file
from hfclip.errors import ArgumentError, DataError, LabelError
from hfclip.probing.division import Indices, divide, drawn
from hfclip.probing.run import ProbeOptions, ProbeReport, probe_collection
from hfclip.probing.training import contents_of

FOLDERS = ProbeOptions(
    labels_from="folder", templates=("a handwritten {}",), device="cpu", test=0.3
)


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> hfclip.Embeddings:
    """Returns the embeddings of 900 digits that are turned by 90 degrees."""
    folder = tmp_path_factory.mktemp("desk")
    write_digits(folder / "turned", 900, turned=True)
    return hfclip.Embeddings(embed_digits(folder / "turned", folder / "out"))


@pytest.fixture(scope="module")
def report(turned: hfclip.Embeddings) -> ProbeReport:
    return probe_collection(turned, FOLDERS)


def test_a_probe_learns_what_zero_shot_does_not_know(report: ProbeReport) -> None:
    assert report.counts["train"] + report.counts["validation"] + report.counts["test"] == 900
    assert 265 <= report.counts["test"] <= 275
    assert report.scores.accuracy >= 0.85
    assert report.zero_shot.accuracy <= 0.5
    assert set(report.scores.per_class) == set(report.probe.labels)
    assert sum(count.total for count in report.scores.per_class.values()) == report.counts["test"]
    assert len(report.scores.confusions) == 20
    assert report.notes == ()


def test_the_probe_is_scikit_learns_on_training_and_validation(
    turned: hfclip.Embeddings, report: ProbeReport
) -> None:
    labels = np.array([key.split("/")[1] for key in turned.keys])
    both = report.counts["train"] + report.counts["validation"]
    assert report.probe.facts["rows"] == both
    # The test rows are those whose labels the accuracy counts; training ends on all others.
    guesses = [one[0].label for one in report.probe.rank(turned, 1)]
    right = np.array(guesses) == labels
    assert right.mean() > report.scores.accuracy
    model = LogisticRegression(C=report.probe.facts["c"], max_iter=1000)
    rows = _training_rows(turned, report)
    model.fit(turned.vectors[rows].astype(np.float64), labels[rows])
    np.testing.assert_allclose(
        report.probe.probabilities(turned), model.predict_proba(turned.vectors), atol=1e-4
    )
    rest = np.setdiff1d(np.arange(900), rows)
    assert report.scores.accuracy == pytest.approx(
        float((model.predict(turned.vectors[rest]) == labels[rest]).mean())
    )
    classifier = hfclip.ZeroShotClassifier(
        hfclip.load("digits", device="cpu")[0], sorted(set(labels)), ["a handwritten {}"]
    )
    zero_shot = classifier.rank_features(torch.from_numpy(turned.to_numpy()[rest]), 1)
    assert report.zero_shot.accuracy == pytest.approx(
        float(np.mean([one[0].label for one in zero_shot] == labels[rest]))
    )


def _training_rows(embeddings: hfclip.Embeddings, report: ProbeReport) -> Indices:
    """Returns the rows of training and validation, from the division's own rules."""
    labels = [key.split("/")[1] for key in embeddings.keys]
    places = {label: place for place, label in enumerate(sorted(set(labels)))}
    targets = np.array([places[label] for label in labels], np.int64)
    rows = drawn(contents_of(embeddings), targets, 0)
    division = divide(rows, [None] * len(labels), test=0.3)
    assert len(division.test) == report.counts["test"]
    return np.sort(np.concatenate([division.train, division.validation]))


def test_few_shots_are_drawn_by_their_seeds(turned: hfclip.Embeddings) -> None:
    options = replace(FOLDERS, shots=8, seeds=3)
    first, again = probe_collection(turned, options), probe_collection(turned, options)
    few = first.few_shot
    assert few is not None
    assert few == again.few_shot
    assert np.array_equal(first.probe.weight, again.probe.weight)
    assert (few.shots, few.seeds, len(few.accuracies)) == (8, [0, 1, 2], 3)
    assert len(set(few.accuracies)) > 1
    assert few.mean == pytest.approx(statistics.fmean(few.accuracies))
    assert few.deviation == pytest.approx(statistics.stdev(few.accuracies))
    assert 0.5 <= few.mean < 0.95
    assert first.scores.accuracy == few.accuracies[0]
    assert first.probe.facts["rows"] == 80
    single = probe_collection(turned, replace(FOLDERS, shots=1, seeds=1))
    assert single.few_shot is not None
    assert single.few_shot.deviation is None
    assert single.few_shot.mean < few.mean
    assert (single.probe.facts["rows"], single.probe.facts["c"]) == (10, 0.316)


def test_given_splits_are_used_and_can_be_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    write_digits(folder / "train", 100)
    write_digits(folder / "val", 40, first=100)
    write_digits(folder / "test", 60, first=140)
    embeddings = hfclip.Embeddings(embed_digits(folder, tmp_path / "out"))
    report = probe_collection(embeddings, FOLDERS)
    assert report.given == ("train", "validation", "test")
    assert [report.counts[name] for name in ("train", "validation", "test")] == [100, 40, 60]
    assert report.scores.accuracy >= 0.9
    divided = probe_collection(embeddings, replace(FOLDERS, split="random"))
    assert divided.given == ()
    assert divided.counts["validation"] != 40


def test_a_class_with_one_picture_is_missing_in_the_test_and_named(tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "digits", 80)
    only = next((folder / "three").iterdir())
    (folder / "single").mkdir()
    only.rename(folder / "single" / only.name)
    report = probe_collection(hfclip.Embeddings(embed_digits(folder, tmp_path / "out")), FOLDERS)
    assert "single" in report.probe.labels
    assert "single" not in report.scores.per_class
    assert report.notes == ("Without a picture in the test: single.",)


def test_a_class_without_training_is_never_right(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    write_digits(folder / "train", 100)
    write_digits(folder / "test", 50, first=140)
    for path in (folder / "train/seven").iterdir():
        path.unlink()
    (folder / "train/seven").rmdir()
    report = probe_collection(hfclip.Embeddings(embed_digits(folder, tmp_path / "out")), FOLDERS)
    assert "seven" not in report.probe.labels
    assert report.scores.per_class["seven"].right == 0
    assert report.zero_shot.per_class["seven"].right > 0
    assert report.notes == ("Without a picture in training, so never guessed: seven.",)


def test_equal_pictures_are_never_on_two_sides(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    write_digits(folder / "train", 60)
    write_digits(folder / "test", 30, first=40)  # 20 of them are in train, too
    embeddings = hfclip.Embeddings(embed_digits(folder, tmp_path / "out"))
    report = probe_collection(embeddings, FOLDERS)
    assert report.counts["train"] + report.counts["validation"] == 40
    assert report.counts["left_out"] == 20
    assert report.notes[0] == ("20 pictures are left out: their content is also on a later side.")


def test_unknown_contents_are_compared_by_their_embeddings(tmp_path: Path) -> None:
    rows = unit_rows(10)
    rows[7] = rows[7]._replace(vector=rows[2].vector)
    out = write_collection(tmp_path / "out", rows)
    known = contents_of(hfclip.Embeddings(out))
    assert len(np.unique(known, axis=0)) == 10
    (out / digest_file(0)).unlink()
    unknown = contents_of(hfclip.Embeddings(out))
    assert len(np.unique(unknown, axis=0)) == 9
    assert np.array_equal(unknown[2], unknown[7])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels_from": None}, "exactly one of labels_from and labels_file"),
        ({"labels_file": Path("x")}, "exactly one of labels_from and labels_file"),
        ({"test": 0.0}, "test is 0.0; expected a share between 0 and 1"),
        ({"validation": 1.5}, "validation is 1.5"),
        ({"shots": 0}, "shots is 0; expected at least 1"),
        ({"seeds": 0}, "seeds is 0; expected at least 1"),
    ],
)
def test_options_are_checked_first(
    changes: dict[str, object], message: str, turned: hfclip.Embeddings
) -> None:
    with pytest.raises(ArgumentError, match=message):
        probe_collection(turned, replace(FOLDERS, **changes))  # type: ignore[arg-type]


def test_one_label_and_texts_are_refused(tmp_path: Path) -> None:
    rows = unit_rows(5)
    one = hfclip.Embeddings(write_collection(tmp_path / "one", rows))
    with pytest.raises(LabelError, match="folder gives one label, 'photos'; expected two or more"):
        probe_collection(one, FOLDERS)
    texts = hfclip.Embeddings(write_collection(tmp_path / "texts", rows, kind="texts"))
    with pytest.raises(DataError, match="a collection of texts"):
        probe_collection(texts, FOLDERS)
