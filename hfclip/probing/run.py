"""Trains a linear probe on a collection and compares it with zero-shot classification."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hfclip.embedding.embeddings import Embeddings
from hfclip.errors import ArgumentError, LabelError
from hfclip.probing.division import Division, divide, drawn, few_of_each_class
from hfclip.probing.labels import Labels, check_pictures, labels_from, labels_in
from hfclip.probing.probe import LinearProbe
from hfclip.probing.regression import FITS, Targets, check_installed, log_probabilities
from hfclip.probing.scores import Scores, scores_of
from hfclip.probing.training import Trained, contents_of, train_few, train_with
from hfclip.zeroshot.labels import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from hfclip.embedding.options import Loaded

# Rows times labels that are scored at once, to bound the memory.
_SCORES = 2**22


@dataclass(frozen=True)
class ProbeOptions:
    """The options of `hfclip probe`.

    Attributes:
        labels_from: "folder" or "caption".
        labels_file: A CSV file with the columns key and label, instead of `labels_from`.
        split: "auto" takes the splits that the keys or the file name; "random" divides.
        test: The share of each class for the test, if it is divided off.
        validation: The share of each class for validation, if it is divided off.
        shots: The number of pictures of each class for training, or None for all.
        seeds: With `shots`, how often pictures are drawn.
        seed: The seed of the division; with `shots` also of the first draw.
        templates: The templates of zero-shot classification. None takes those of the model, else
            "a photo of a {}".
        device: The device of the model. None selects the GPU if there is one.
    """

    labels_from: str | None = None
    labels_file: Path | None = None
    split: Literal["auto", "random"] = "auto"
    test: float = 0.2
    validation: float = 0.1
    shots: int | None = None
    seeds: int = 3
    seed: int = 0
    templates: Sequence[str] | None = None
    device: str | None = None

    def check(self) -> None:
        """Checks the options before anything is read.

        Raises:
            ArgumentError: An option has an unsupported value.
        """
        if (self.labels_from is None) == (self.labels_file is None):
            raise ArgumentError("Give exactly one of labels_from and labels_file.")
        for name in ("test", "validation"):
            share = getattr(self, name)
            if not 0 < share < 1:
                raise ArgumentError(f"{name} is {share}; expected a share between 0 and 1.")
        for name in ("shots", "seeds"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ArgumentError(f"{name} is {number}; expected at least 1.")


class FewShot(NamedTuple):
    """The accuracy with few pictures of each class.

    Attributes:
        shots: The number of pictures of each class. A class with fewer has all of its pictures.
        seeds: The seed of each draw.
        accuracies: The accuracy on the test of each draw.
        mean: Their mean.
        deviation: Their standard deviation, with n - 1 in the denominator; None for one draw.
    """

    shots: int
    seeds: list[int]
    accuracies: list[float]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class ProbeReport:
    """A trained probe and its measurements on the test rows.

    Attributes:
        probe: The probe. With few shots it is that of the first seed.
        scores: The scores of the probe.
        zero_shot: The scores of zero-shot classification on the same rows.
        few_shot: The accuracies with few pictures, or None.
        counts: The number of rows: train, validation, test, left_out, unlabelled, errors, and the
            keys of the file that the collection does not have.
        given: The names of the splits that were given.
        notes: What a person should know, one sentence each.
    """

    probe: LinearProbe
    scores: Scores
    zero_shot: Scores
    few_shot: FewShot | None
    counts: dict[str, int]
    given: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as values for JSON."""
        return {
            "labels": list(self.probe.labels),
            "counts": self.counts,
            "splits": list(self.given),
            "training": self.probe.facts,
            "probe": self.scores.to_dict(),
            "zero_shot": self.zero_shot.to_dict(),
            "few_shot": None if self.few_shot is None else self.few_shot._asdict(),
            "notes": list(self.notes),
        }


class _Task(NamedTuple):
    """The labelled rows of a collection. M is their number."""

    vectors: NDArray[np.float32]
    targets: Targets
    names: list[str]
    digests: NDArray[np.uint8]
    division: Division


def probe_collection(
    embeddings: Embeddings, options: ProbeOptions, *, progress: bool = False
) -> ProbeReport:
    """Trains a linear probe on a collection and measures it beside zero-shot classification.

    Args:
        embeddings: The collection.
        options: Where the labels come from, and how rows are divided.
        progress: Whether to show a progress bar.

    Raises:
        ArgumentError: An option has an unsupported value.
        DataError: The collection holds texts, a side of the division has no row, the model has
            changed, or scikit-learn is missing.
        LabelError: The labels cannot be read, or there are fewer than two.
        HfclipError: As `hfclip.load`.
    """
    options.check()
    check_installed()
    check_pictures(embeddings)
    labels = _labels(embeddings, options)
    task = _task(embeddings, labels, options)
    from hfclip.embedding.options import load_model_of  # noqa: PLC0415  # imports torch

    loaded = load_model_of(embeddings.manifest, device=options.device)
    templates = tuple(options.templates or loaded.model.templates or (DEFAULT_TEMPLATE,))
    guesses = _zero_shot(task, loaded, templates)
    test = task.targets[task.division.test]
    zero_shot = scores_of(test, guesses, task.names)
    with tqdm(
        desc="fitting",
        total=(FITS + 1) * (options.seeds if options.shots else 1),
        unit="fit",
        leave=False,
        disable=None if progress else True,
    ) as bar:
        trained, few_shot = _trained(task, options, bar.update)
    scores = scores_of(test, _guesses(task, trained), task.names)
    counts = {
        "train": len(task.division.train),
        "validation": len(task.division.validation),
        "test": len(task.division.test),
        "left_out": task.division.left_out,
        "unlabelled": len(embeddings) - len(task.targets),
        "errors": len(embeddings.errors),
        "unknown_keys": labels.unknown,
    }
    facts = {
        "labels_from": labels.source,
        "division": counts | {"given": list(task.division.given), "seed": options.seed},
        "validation_accuracy": trained.validation,
        "test_accuracy": scores.accuracy,
        "zero_shot_accuracy": zero_shot.accuracy,
        "templates": list(templates),
        "few_shot": None if few_shot is None else few_shot._asdict(),
    }
    return ProbeReport(
        LinearProbe.of(trained, task.names, embeddings.manifest, facts),
        scores,
        zero_shot,
        few_shot,
        counts,
        task.division.given,
        tuple(_notes(task, trained, options)),
    )


def _labels(embeddings: Embeddings, options: ProbeOptions) -> Labels:
    if options.labels_file is not None:
        return labels_in(options.labels_file, embeddings)
    return labels_from(embeddings, options.labels_from or "")


def _task(embeddings: Embeddings, labels: Labels, options: ProbeOptions) -> _Task:
    rows = np.flatnonzero([name is not None for name in labels.names])
    names = sorted({name for name in labels.names if name is not None})
    if len(names) < 2:
        found = f"one label, {names[0]!r}" if names else "no label"
        raise LabelError(f"{labels.source} gives {found}; expected two or more.")
    places = {name: place for place, name in enumerate(names)}
    targets = np.array([places[str(labels.names[row])] for row in rows.tolist()], np.int64)
    chosen = embeddings if len(rows) == len(embeddings) else embeddings[rows]
    digests = contents_of(chosen)
    splits = [labels.splits[row] if options.split == "auto" else None for row in rows.tolist()]
    division = divide(
        drawn(digests, targets, options.seed),
        splits,
        test=options.test,
        validation=options.validation,
    )
    return _Task(chosen.vectors, targets, names, digests, division)


def _trained(
    task: _Task, options: ProbeOptions, on_fit: Callable[[], object]
) -> tuple[Trained, FewShot | None]:
    division = task.division
    if options.shots is None:
        trained = train_with(
            task.vectors, task.targets, division.train, division.validation, on_fit
        )
        return trained, None
    pool = np.sort(np.concatenate([division.train, division.validation]))
    test = task.targets[division.test]
    seeds = list(range(options.seed, options.seed + options.seeds))
    results: list[Trained] = []
    accuracies: list[float] = []
    for seed in seeds:
        rows = drawn(task.digests[pool], task.targets[pool], seed)
        few = pool[few_of_each_class(rows, options.shots)]
        results.append(train_few(task.vectors[few], task.targets[few], on_fit))
        accuracies.append(float((_guesses(task, results[-1]) == test).mean()))
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    few_shot = FewShot(options.shots, seeds, accuracies, statistics.fmean(accuracies), deviation)
    return results[0], few_shot


def _guesses(task: _Task, trained: Trained) -> Targets:
    """Returns the class that a classifier gives to each test row, int64 (T,)."""
    solution = trained.solution
    found = [
        solution.classes[log_probabilities(block, solution.weight, solution.bias).argmax(axis=1)]
        for block in _test_blocks(task)
    ]
    return np.concatenate(found)


def _zero_shot(task: _Task, loaded: "Loaded", templates: Sequence[str]) -> Targets:
    """Returns the class that zero-shot classification gives to each test row, int64 (T,)."""
    from hfclip.zeroshot.classifier import label_features  # noqa: PLC0415  # imports torch

    features = label_features(loaded.model, task.names, templates).float().cpu().numpy()
    # The length of a row's vector does not change which product is the largest.
    return np.concatenate([(block @ features.T).argmax(axis=1) for block in _test_blocks(task)])


def _test_blocks(task: _Task) -> Iterator[NDArray[np.float32]]:
    size = max(1, _SCORES // len(task.names))
    for begin in range(0, len(task.division.test), size):
        yield task.vectors[task.division.test[begin : begin + size]]


def _notes(task: _Task, trained: Trained, options: ProbeOptions) -> Iterator[str]:
    counts, division = np.bincount(task.targets, minlength=len(task.names)), task.division
    if division.left_out:
        yield f"{division.left_out:,} pictures are left out: their content is also on a later side."
    if division.given == ("train", "validation"):
        yield "There is no test split, so the given validation split is the test."
    missing = set(range(len(counts))) - set(task.targets[division.test].tolist())
    if missing:
        yield f"Without a picture in the test: {_listed(task.names, missing)}."
    untrained = set(range(len(counts))) - set(trained.solution.classes.tolist())
    if untrained:
        yield (
            f"Without a picture in training, so never guessed: {_listed(task.names, untrained)}."
        )
    pairs = {*zip(map(bytes, task.digests), task.targets.tolist(), strict=True)}
    repeated = sum(count > 1 for count in Counter(digest for digest, _ in pairs).values())
    if repeated:
        yield f"{repeated:,} contents have several labels."
    if not trained.solution.converged:
        yield "The fit did not converge within its iterations; the result may be a little worse."
    if trained.validation is None and options.shots is None:
        yield f"No class has two pictures for validation, so C is {trained.c}."


def _listed(names: Sequence[str], chosen: set[int]) -> str:
    shown = [names[place] for place in sorted(chosen)[:5]]
    more = f" and {len(chosen) - 5:,} more" if len(chosen) > 5 else ""
    return ", ".join(shown) + more
