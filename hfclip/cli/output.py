"""Prints facts, tables and warnings for the commands."""

import sys
from typing import Any

import click


def echo(text: str, *, err: bool = False) -> None:
    """Prints lines immediately and redraws a progress bar below them.

    Bytes of a file name that are not UTF-8 are printed as question marks.
    """
    printable = text.encode("utf-8", "replace").decode("utf-8")
    if "tqdm" not in sys.modules:  # there is no bar
        click.echo(printable, err=err)
        return
    from tqdm import tqdm  # noqa: PLC0415

    with tqdm.external_write_mode():
        click.echo(printable, err=err)


def print_facts(facts: dict[str, Any]) -> None:
    """Prints the name and value of each fact on one line."""
    for key, value in facts.items():
        click.echo(f"{key.replace('_', ' '):<14} {sentence(value)}")


def table(rows: list[dict[str, Any]]) -> str:
    """Returns a table with a header line and left-aligned columns."""
    if not rows:
        return ""
    lines = [list(rows[0]), *([sentence(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def sentence(value: Any) -> str:
    """Formats a value: 1,000 for a number, yes or no for a bool, commas between list items."""
    if isinstance(value, dict):
        return ", ".join(f"{sentence(count)} {name}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Prints a warning as one line on standard error. Replaces `warnings.showwarning`."""
    click.echo(f"Warning: {message}", err=True)
