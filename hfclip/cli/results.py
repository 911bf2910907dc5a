"""Prints the results of `hfclip classify` as text, a JSON array or a JSON object per line."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from textwrap import indent
from typing import TYPE_CHECKING, Any, TypeAlias

from hfclip.cli.output import echo
from hfclip.errors import ImageError

if TYPE_CHECKING:
    from hfclip.zeroshot.labels import Guess

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
    """Prints one JSON array, also after Ctrl-C. Returns the number of errors.

    The rows are printed as they come, so the memory does not grow with their number.
    """
    broken = 0
    last: str | None = None
    try:
        for row in map(_row, results):
            echo("[" if last is None else f"{last},")
            last = indent(json.dumps(row, indent=2), "  ")
            broken += "error" in row
    finally:  # the array is whole after an exception, too
        echo("[]" if last is None else f"{last}\n]")
    return broken


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
    if not shown:
        yield results
        return
    from tqdm import tqdm  # noqa: PLC0415

    with tqdm(results, total=total, unit="image", disable=None) as bar:
        yield bar


def _row(result: Result) -> dict[str, Any]:
    name, outcome = result
    if isinstance(outcome, ImageError):
        return {"image": name, "error": str(outcome)}
    return {"image": name, "labels": [guess._asdict() for guess in outcome]}
