"""Classifies the embeddings of collections for `hfclip classify`, without a picture."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click
from click.core import ParameterSource

from hfclip.cli.results import Result
from hfclip.errors import DataError, ImageError

if TYPE_CHECKING:
    from hfclip.embedding.embeddings import Embeddings
    from hfclip.embedding.manifest import Manifest
    from hfclip.zeroshot.labels import Guess

    # Ranks labels for rows of a collection.
    Rank: TypeAlias = Callable[[Embeddings], list[list[Guess]]]

# Rows that are ranked at once, and the most rows times labels.
_ROWS, _SCORES = 8_192, 2**22


def collections_in(names: Sequence[str]) -> list[str]:
    """Returns the arguments that are collections: all of them or none.

    Raises:
        UsageError: There are collections and pictures.
    """
    found = [name for name in names if _is_collection(name)]
    if found and len(found) < len(names):
        other = next(name for name in names if name not in found)
        raise click.UsageError(
            f"{found[0]} is a collection of embeddings and {other} is not. Classify collections "
            "and pictures with two commands."
        )
    return found


def is_given(option: str) -> bool:
    """Returns whether an option is on the command line."""
    source = click.get_current_context().get_parameter_source(option)
    return source is ParameterSource.COMMANDLINE


def refuse(options: Iterable[str], reason: str) -> None:
    """Raises UsageError if one of these options is on the command line."""
    for parameter in click.get_current_context().command.params:
        if parameter.name in options and is_given(parameter.name):
            raise click.UsageError(f"Leave out {parameter.opts[0]}: {reason}")


def opened(folders: Iterable[str]) -> "list[Embeddings]":
    """Opens collections of pictures of one model.

    Raises:
        DataError: One of them holds texts, or is of another model than the first.
    """
    from hfclip.embedding.embeddings import Embeddings  # noqa: PLC0415
    from hfclip.probing.labels import check_pictures  # noqa: PLC0415

    found = [Embeddings(folder, progress=True) for folder in folders]
    for one in found:
        check_pictures(one)
        if not one.manifest.has_model_of(found[0].manifest):
            raise DataError(
                f"{one.out} has embeddings of {one.manifest.model}, {found[0].out} of "
                f"{found[0].manifest.model}. Classify them with two commands."
            )
    return found


def check_model(given: str, manifest: "Manifest", place: str | Path) -> None:
    """Checks that --model names the model of a collection or a probe.

    Raises:
        DataError: It names another one.
    """
    from hfclip.embedding.options import is_model  # noqa: PLC0415

    if not is_model(given, manifest):
        raise DataError(
            f"--model is {given}, but {place} was made with {manifest.model}. Leave out --model."
        )


def count_of(collections: "Iterable[Embeddings]") -> int:
    """Returns the number of inputs, with and without an embedding."""
    return sum(len(one) + len(one.errors) for one in collections)


def ranked(
    collections: "Iterable[Embeddings]", rank: "Rank", label_count: int
) -> "Iterator[Result]":
    """Yields the ranked labels of each row, then the inputs without an embedding as errors.

    Args:
        collections: The collections.
        rank: Ranks the labels for some of the rows.
        label_count: The number of labels.
    """
    import numpy as np  # noqa: PLC0415

    size = max(1, min(_ROWS, _SCORES // label_count))
    for one in collections:
        for begin in range(0, len(one), size):
            some = one[begin : begin + size]
            has_length = np.asarray(some.vectors.any(axis=1))
            outcomes = iter(rank(some if has_length.all() else some[has_length]))
            for key, good in zip(some.keys, has_length.tolist(), strict=True):
                yield key, next(outcomes) if good else ImageError(f"{key}: the embedding is zero")
        for key, reason in one.errors.items():
            text = reason if reason.startswith(key) else f"{key}: {reason}"
            yield key, ImageError(text)


def _is_collection(name: str) -> bool:
    """Returns whether a folder is a collection: it has a manifest, and a plan or parts."""
    if "://" in name:
        from hfclip.embedding.stores import open_store  # noqa: PLC0415

        store = open_store(name)
        return store.exists("manifest.json") and store.exists(".hfclip/plan.parquet")
    folder = Path(name)
    if not (folder / "manifest.json").is_file():
        return False
    return (folder / ".hfclip/plan.parquet").is_file() or any(folder.glob("part-*.parquet"))
