"""Prints the results of `hfclip classify` as text, a JSON array or a JSON object per line."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from hfclip.cli.output import echo
from hfclip.errors import ImageError

if TYPE_CHECKING:
    from hfclip.zeroshot.classifier import Guess

# The name of a picture, and its ranked labels or its error.
Result: TypeAlias = "tuple[str, list[Guess] | ImageError]"


def print_text(results: Iterable[Result]) -> int:
    """Prints text and returns the number of pictures that could not be read."""
    broken = 0
    for name, outcome in results:
        if isinstance(outcome, ImageError):
            echo(f"Error: {outcome}", err=True)
            broken += 1
            continue
        width = max(len(guess.label) for guess in outcome)
        lines = [f"  {label:<{width}}  {probability:7.2%}" for label, probability in outcome]
        echo("\n".join([name, *lines]))
    return broken


def print_json(results: Iterable[Result]) -> int:
    """Prints one JSON array at the end, or after Ctrl-C. Returns the number of errors."""
    rows: list[dict[str, Any]] = []
    try:
        rows.extend(map(_row, results))  # keeps the rows before an exception
    finally:
        echo(json.dumps(rows, indent=2))
    return sum("error" in row for row in rows)


def print_json_lines(results: Iterable[Result]) -> int:
    """Prints one JSON object per line after each batch. Returns the number of errors."""
    broken = 0
    for row in map(_row, results):
        echo(json.dumps(row))
        broken += "error" in row
    return broken


PRINTERS: dict[str, Callable[[Iterable[Result]], int]] = {
    "text": print_text,
    "json": print_json,
    "json-lines": print_json_lines,
}


@contextmanager
def progress(results: Iterator[Result], total: int, *, shown: bool) -> Iterator[Iterable[Result]]:
    """Shows a progress bar on standard error if it is a terminal."""
    from tqdm import tqdm  # noqa: PLC0415

    with tqdm(results, total=total, unit="image", disable=None if shown else True) as bar:
        yield bar


def _row(result: Result) -> dict[str, Any]:
    name, outcome = result
    if isinstance(outcome, ImageError):
        return {"image": name, "error": str(outcome)}
    return {"image": name, "labels": [guess._asdict() for guess in outcome]}
