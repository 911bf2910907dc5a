"""The options for labels and templates, and what they say."""

import codecs
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hfclip.errors import LabelError
from hfclip.layouts.labels import LABELS_FILE, LabelSet
from hfclip.releases import BUNDLED, RELEASES
from hfclip.zeroshot.labels import DEFAULT_TEMPLATE, check_labels
from hfclip.zeroshot.templates import TEMPLATES

_Function = TypeVar("_Function", bound=Callable[..., Any])

TEXT_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# Byte-order marks that Windows writes at the start of a text file.
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def template_options(purpose: str = "") -> Callable[[_Function], _Function]:
    """Returns a decorator that adds the options from which `read_templates` reads.

    Args:
        purpose: What the help adds to "A caption with {} for the label".
    """
    options = (
        click.option(
            "--template",
            "template",
            multiple=True,
            help=f"A caption with {{}} for the label{purpose}. Repeat to average several. Default: "
            'the templates of a fine-tuned model, else "a photo of a {}".',
        ),
        click.option(
            "--templates",
            type=click.Choice(list(TEMPLATES)),
            help="Average the 80 templates of OpenAI's evaluation on ImageNet.",
        ),
        click.option(
            "--templates-file", type=TEXT_FILE, help="A text file with one template per line."
        ),
    )

    def decorate(command: _Function) -> _Function:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def read_labels(labels: str | None, path: Path | None, model: str) -> tuple[str, ...] | None:
    """Returns the labels of --labels or --labels-file, or None if the model must have them.

    Raises:
        UsageError: Both options are given; or neither is, and the model is known to have no labels.
        LabelError: A label is empty or repeated, or the file is empty or not a text file.
    """
    if labels is not None and path is not None:
        raise click.UsageError("Give exactly one of --labels and --labels-file.")
    if labels is None and path is None:
        if model in {*RELEASES, *BUNDLED}:
            raise click.UsageError(
                f"Give exactly one of --labels and --labels-file. {model} has no labels of its own."
            )
        return None
    if path is None:
        return _checked(_split(labels or ""))
    lines = _read_lines(path)
    first: dict[str, int] = {}
    for number, label in lines:
        if label in first:
            raise LabelError(
                f"{path}: line {number} repeats line {first[label]}, {label!r}. Give each label "
                "once."
            )
        first[label] = number
    return _checked([label for _, label in lines])


def read_templates(
    strings: tuple[str, ...], name: str | None, path: Path | None
) -> tuple[str, ...] | None:
    """Returns the templates of --template, --templates or --templates-file, or None.

    Raises:
        UsageError: More than one of the three options is given.
        LabelError: A line of the file has no {}, or the file is empty or not a text file.
    """
    if bool(strings) + (name is not None) + (path is not None) > 1:
        raise click.UsageError("Give only one of --template, --templates and --templates-file.")
    if name is not None:
        return TEMPLATES[name]
    if path is None:
        return strings or None
    lines = _read_lines(path)
    for number, template in lines:
        if "{}" not in template:
            raise LabelError(
                f"{path}: line {number}, {template!r}, has no {{}} where the label goes, as in "
                f"{DEFAULT_TEMPLATE!r}."
            )
    return tuple(template for _, template in lines)


def complete(
    labels: tuple[str, ...] | None,
    templates: tuple[str, ...] | None,
    own: LabelSet | None,
    name: str,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the labels and templates, from the model where no option gives them.

    Args:
        labels: The labels of the options, or None.
        templates: The templates of the options, or None.
        own: The labels and templates of the model, or None.
        name: The name of the model.

    Raises:
        LabelError: No option gives labels, and the model has none.
    """
    chosen = labels or (own.labels if own else None)
    if chosen is None:
        raise LabelError(
            f"{name} has no labels of its own: no {LABELS_FILE} was read. Give --labels or "
            "--labels-file."
        )
    return chosen, templates or (own.templates if own else (DEFAULT_TEMPLATE,))


def _checked(labels: list[str]) -> tuple[str, ...]:
    if len(labels) == 1:
        click.echo(
            f"Warning: there is one label, {labels[0]!r}, so each picture gets 100% for it. "
            "--labels separates labels by commas, --labels-file by lines.",
            err=True,
        )
    return check_labels(labels)


def _split(labels: str) -> list[str]:
    parts = [label.strip() for label in labels.split(",")]
    if not all(parts):
        raise LabelError(
            f"Label {parts.index('') + 1} of --labels is empty. Give at least one label, and no "
            "empty label. Commas separate labels; use --labels-file for labels that have commas."
        )
    return parts


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Returns the lines that are not blank, with their line numbers."""
    content = path.read_bytes()
    marked = (name for mark, name in _ENCODINGS.items() if content.startswith(mark))
    encoding = next(marked, "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LabelError(
            f"{path} is not in UTF-8: line {line} has the byte 0x{content[error.start]:02x}. Save "
            "it as UTF-8."
        ) from error
    if "\0" in text:
        raise LabelError(f"{path} is not a text file: it contains NUL bytes. Save it as UTF-8.")
    numbered = enumerate(io.StringIO(text, newline=None), start=1)
    lines = [(number, line.strip()) for number, line in numbered if line.strip()]
    if not lines:
        raise LabelError(f"{path} is empty; expected one label or template per line.")
    return lines
