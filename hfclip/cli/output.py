"""How the commands print facts and tables."""

from typing import Any

import click


def echo(text: str, *, err: bool = False) -> None:
    """Prints lines at once, on lines of their own: a bar is taken away before and put back after.

    Bytes of a file name that are not UTF-8 are shown as question marks.
    """
    from tqdm import tqdm  # noqa: PLC0415

    printable = text.encode("utf-8", "replace").decode("utf-8")
    with tqdm.external_write_mode():
        click.echo(printable, err=err)


def print_facts(facts: dict[str, Any]) -> None:
    """Prints one fact a line: its name, then its value."""
    for key, value in facts.items():
        click.echo(f"{key.replace('_', ' '):<14} {sentence(value)}")


def table(rows: list[dict[str, Any]]) -> str:
    """Left-aligned columns under their names; numbers with thousands marked."""
    if not rows:
        return ""
    lines = [list(rows[0]), *([sentence(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def sentence(value: Any) -> str:
    """Returns a value for people: thousands separated, lists joined by commas, yes or no."""
    if isinstance(value, dict):
        return ", ".join(f"{sentence(count)} {name}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Prints a warning as one line on standard error; takes the place of `warnings.showwarning`."""
    click.echo(f"Warning: {message}", err=True)
