"""The measurements of a model on a data set: accuracy and recall. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

# The numbers of candidates among which a right one counts.
RECALL_AT = (1, 5, 10)


class Headline(NamedTuple):
    """The number that decides between two models, and its name."""

    name: str
    value: float


@dataclass(frozen=True)
class Metrics:
    """How well a model knows a data set. All shares are from 0 to 1.

    Attributes:
        accuracy: The share of pictures whose own label is ranked first; None without labels.
        per_class: The accuracy of each label that has a picture, in the order of the labels.
        image_to_text: The share of distinct pictures with a right caption among the first k
            distinct captions, by k.
        text_to_image: The share of distinct captions with a right picture among the first k
            distinct pictures, by k.
        count: The number of pictures, repeated ones included.

    A k that is not smaller than the number of candidates is left out, except 1: any ranking would
    be right.
    """

    accuracy: float | None
    per_class: Mapping[str, float]
    image_to_text: Mapping[int, float]
    text_to_image: Mapping[int, float]
    count: int

    @property
    def headline(self) -> Headline:
        """The accuracy if there are labels, else the mean of recall@1 in both directions.

        Each direction has blind spots: with few distinct captions, image to text is easy, and with
        many captions a picture, text to image is hard. The mean changes with both.
        """
        if self.accuracy is not None:
            return Headline("accuracy", self.accuracy)
        return Headline("recall@1", (self.image_to_text[1] + self.text_to_image[1]) / 2)

    def shares(self) -> dict[str, float]:
        """Returns all numbers except those of single labels, by name, the headline first."""
        found = dict([self.headline])
        for title, recalls in (
            ("image to text", self.image_to_text),
            ("text to image", self.text_to_image),
        ):
            found |= {f"{title} recall@{k}": value for k, value in recalls.items()}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers in JSON types."""
        return {
            "accuracy": self.accuracy,
            "per_class": dict(self.per_class),
            "image_to_text": {str(k): value for k, value in self.image_to_text.items()},
            "text_to_image": {str(k): value for k, value in self.text_to_image.items()},
            "count": self.count,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Metrics":
        """Returns the metrics that `to_dict` described."""
        return cls(
            values["accuracy"],
            dict(values["per_class"]),
            {int(k): value for k, value in values["image_to_text"].items()},
            {int(k): value for k, value in values["text_to_image"].items()},
            values["count"],
        )
