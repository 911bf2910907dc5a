"""Divides examples into training and validation, as a function of pictures and seed alone."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from hfclip.data.records import Example


def divide(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Divides examples into training and validation.

    Each distinct picture draws a number in [0, 1) from its hash and the seed, and is in validation
    if the number is below `share`. So identical pictures are on one side, and a picture stays on
    its side when others are added. There are two exceptions. A class whose pictures all drew
    validation keeps the one with the largest number in training. If no picture drew validation,
    the one with the smallest number is moved there, unless a class or all training data would be
    left without a picture.

    Args:
        examples: The examples.
        share: The part for validation, from 0 to less than 1; 0 gives no validation.
        seed: Another seed gives another division.

    Returns:
        The examples for training and for validation, in the given order.
    """
    if not share:
        return list(examples), []
    draws = {example.digest: _draw(example.digest, seed) for example in examples}
    chosen = {digest for digest, drawn in draws.items() if drawn < share}
    classes: dict[str | None, set[str]] = defaultdict(set)
    for example in examples:
        classes[example.label].add(example.digest)
    # All classes are compared with the same draws: a picture may have two labels.
    chosen -= {
        max(digests, key=lambda digest: (draws[digest], digest))
        for digests in classes.values()
        if digests <= chosen
    }
    if not chosen:
        chosen = _smallest_spare(draws, list(classes.values()))
    train = [example for example in examples if example.digest not in chosen]
    return train, [example for example in examples if example.digest in chosen]


def _smallest_spare(draws: dict[str, float], classes: Sequence[set[str]]) -> set[str]:
    """Returns the digest with the smallest number that is not the only one of its class."""
    needed = {next(iter(digests)) for digests in classes if len(digests) == 1}
    spare = sorted((drawn, digest) for digest, drawn in draws.items() if digest not in needed)
    return {digest for _, digest in spare[:1]}


def _draw(digest: str, seed: int) -> float:
    """Returns a number in [0, 1) from the first 53 bits of a hash."""
    drawn = hashlib.sha256(f"{seed}:{digest}".encode()).digest()
    return (int.from_bytes(drawn[:8], "big") >> 11) / 2**53


def describe(examples: Sequence[Example]) -> str:
    """Returns the number of pictures, captions and classes in words."""
    captions = sum(len(example.captions) for example in examples)
    classes = len(Counter(example.label for example in examples if example.label is not None))
    counts = ((len(examples), "picture"), (captions, "caption"), (classes, "class"))
    return ", ".join(
        f"{count:,} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"
        for count, noun in counts
        if count
    )
