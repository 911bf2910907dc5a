"""The result of a fine-tune in numbers: what finetune.json holds. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from hfclip.data.records import Dataset
from hfclip.errors import NetworkError
from hfclip.hub import fetch as hub
from hfclip.hub.fetch import Access
from hfclip.releases import BUNDLED, RELEASES
from hfclip.sources.find import repository_of
from hfclip.training.metrics import Metrics

# The prefix of a data set's name on the Hub.
HUB_DATA = "hf:"


@dataclass(frozen=True)
class BaseModel:
    """The model that was fine-tuned, without paths of this machine.

    Attributes:
        name: A release, a bundled model or a repository; "a local model" for a file or folder.
        repository: Its repository on the Hub, or None.
        commit: The commit of the repository that was read, or None if it is unknown.
    """

    name: str
    repository: str | None = None
    commit: str | None = None

    @classmethod
    def of(
        cls, name: str, *, revision: str | None = None, namespace: str | None = None
    ) -> "BaseModel":
        """Describes a base that was loaded by this name. Makes no request."""
        found = repository_of(name, revision=revision, namespace=namespace)
        if found is None:
            return cls(name if name in BUNDLED else "a local model")
        repository, wanted = found
        shown = name if name in RELEASES else repository
        try:
            commit = hub.resolve(repository, wanted, Access(local_files_only=True)).commit
        except NetworkError:  # OpenAI's own file was read
            return cls(shown, repository)
        return cls(shown, repository, commit)


@dataclass(frozen=True)
class DataCounts:
    """The size of the data, without paths.

    Attributes:
        train: The number of pictures in the training split.
        validation: The number of pictures in the validation split.
        test: The number of pictures in the test split.
        captions: The number of distinct captions in the training split, 0 if there are only labels.
        skipped: The number of pictures and rows that were not used.
        keep: The number of pictures that measure what is forgotten.
        repository: The data set on the Hub: "org/name", or None.
    """

    train: int
    validation: int
    test: int
    captions: int
    skipped: int
    keep: int = 0
    repository: str | None = None

    @classmethod
    def of(cls, data: Dataset, source: str, keep: int = 0) -> "DataCounts":
        """Counts a data set.

        Args:
            data: The data set.
            source: Its name as the user gave it. Only a name on the Hub, `hf:org/name`, is kept.
            keep: The number of pictures that measure what is forgotten.
        """
        captions = {caption for example in data.train for caption in example.captions}
        on_hub = source.startswith(HUB_DATA)
        return cls(
            len(data.train),
            len(data.validation),
            len(data.test),
            len(captions),
            len(data.skipped),
            keep,
            source.removeprefix(HUB_DATA).split("@")[0] if on_hub else None,
        )


class Scores(NamedTuple):
    """The measurements of one model: on the data, and on the data that it must not forget."""

    own: Metrics
    keep: Metrics | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the scores in JSON types."""
        return {"own": self.own.to_dict(), "keep": self.keep and self.keep.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scores":
        """Returns the scores that `to_dict` described."""
        keep = values["keep"]
        return cls(Metrics.from_dict(values["own"]), keep and Metrics.from_dict(keep))


@dataclass(frozen=True)
class Epoch:
    """The measurements after an epoch, on the validation split.

    Attributes:
        number: The number of the epoch; 0 before training.
        step: The number of optimizer steps until then.
        scores: The scores.
    """

    number: int
    step: int
    scores: Scores

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurements in JSON types."""
        return {"number": self.number, "step": self.step, "scores": self.scores.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Epoch":
        """Returns the epoch that `to_dict` described."""
        return cls(values["number"], values["step"], Scores.from_dict(values["scores"]))


@dataclass(frozen=True)
class Results:
    """The numbers of a fine-tune.

    Attributes:
        base: The model that was fine-tuned.
        settings: The settings by name, in JSON types. No value is a path.
        data: The size of the data.
        labels: The labels in order, or None if the data has captions.
        split: The split of `before`, `tuned` and `mixed`: "test" if there is one, else
            "validation".
        before: The scores of the base.
        tuned: The scores of the trained weights alone (alpha 1).
        mixed: The scores of the published weights.
        epochs: The scores on the validation split, before training first.
        alphas: The scores of the mixtures on the validation split, by alpha; empty without mixing.
        alpha: The share of the trained weights in the published ones.
        seconds: The time of the training.
        processes: The number of processes.
        device: The device and the processor in words.
        versions: The versions of Python and of the packages.
    """

    base: BaseModel
    settings: Mapping[str, Any]
    data: DataCounts
    labels: tuple[str, ...] | None
    split: str
    before: Scores
    tuned: Scores
    mixed: Scores
    epochs: Sequence[Epoch]
    alphas: Mapping[float, Scores]
    alpha: float
    seconds: float
    processes: int
    device: str
    versions: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers in JSON types, in the order of the attributes."""
        return {
            "base": asdict(self.base),
            "settings": dict(self.settings),
            "data": asdict(self.data),
            "labels": self.labels and list(self.labels),
            "split": self.split,
            "before": self.before.to_dict(),
            "tuned": self.tuned.to_dict(),
            "mixed": self.mixed.to_dict(),
            "epochs": [epoch.to_dict() for epoch in self.epochs],
            "alphas": {str(alpha): scores.to_dict() for alpha, scores in self.alphas.items()},
            "alpha": self.alpha,
            "seconds": self.seconds,
            "processes": self.processes,
            "device": self.device,
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Results":
        """Returns the results that `to_dict` described. Ignores other keys."""
        rest = ("settings", "split", "alpha", "seconds", "processes", "device", "versions")
        return cls(
            base=BaseModel(**values["base"]),
            data=DataCounts(**values["data"]),
            labels=values["labels"] and tuple(values["labels"]),
            before=Scores.from_dict(values["before"]),
            tuned=Scores.from_dict(values["tuned"]),
            mixed=Scores.from_dict(values["mixed"]),
            epochs=[Epoch.from_dict(each) for each in values["epochs"]],
            alphas={float(key): Scores.from_dict(each) for key, each in values["alphas"].items()},
            **{name: values[name] for name in rest},
        )
