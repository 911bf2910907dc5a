"""Checks labels and templates before they are encoded. Imports no torch."""

import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from textwrap import shorten
from typing import Any, NamedTuple, TypeAlias

from hfclip.errors import ArgumentTypeError, LabelError

DEFAULT_TEMPLATE = "a photo of a {}"

Template: TypeAlias = str | Callable[[str], str]


class Guess(NamedTuple):
    """A label and its probability among the given labels."""

    label: str
    probability: float


_shorten = reprlib.Repr()
_shorten.maxlist = _shorten.maxtuple = 5
_shorten.maxstring = _shorten.maxother = 60


def check_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Returns labels as a tuple of plain strings.

    Raises:
        LabelError: There is no label, one is empty or repeated, or `labels` is a single string.
        ArgumentTypeError: `labels` is not an iterable of strings.
    """
    items = _items("labels", labels)
    for index, label in enumerate(items):
        if not isinstance(label, str):
            raise ArgumentTypeError(
                f"Label {index} is {_shorten.repr(label)}, of type {type(label).__name__}; "
                "expected a string."
            )
    checked = tuple(str.__str__(label) for label in items)  # converts NumPy's strings too
    empty = [index for index, label in enumerate(checked) if not label.strip()]
    if not checked or empty:
        where = f"; label {empty[0]}, counted from 0, is empty" if empty else ""
        raise LabelError(
            f"The labels are {_shorten.repr(list(checked))}{where}. Give at least one label, and "
            "no empty label."
        )
    repeated = [label for label, count in Counter(checked).items() if count > 1]
    if repeated:
        more = f" and {len(repeated) - 5} more" if len(repeated) > 5 else ""
        shown = ", ".join(shorten(label, 60) for label in repeated[:5])
        raise LabelError(f"Labels occur more than once: {shown}{more}. Give each label once.")
    return checked


def check_templates(templates: Iterable[Template]) -> tuple[Template, ...]:
    """Returns templates as a tuple of strings and functions.

    Raises:
        LabelError: There is no template, one has no {}, or `templates` is a single string.
        ArgumentTypeError: `templates` is not an iterable of strings and functions.
    """
    items = _items("templates", templates)
    for index, template in enumerate(items):
        if not isinstance(template, str) and not callable(template):
            raise ArgumentTypeError(
                f"Template {index} is {_shorten.repr(template)}, of type "
                f"{type(template).__name__}; expected a string with {{}} for the label, or a "
                "function from a label to a caption."
            )
    strings = [(index, text) for index, text in enumerate(items) if isinstance(text, str)]
    lacking = [index for index, text in strings if "{}" not in text]
    if not items or lacking:
        where = f"; template {lacking[0]}, counted from 0, has no {{}}" if lacking else ""
        raise LabelError(
            f"The templates are {_shorten.repr(items)}{where}. Give at least one template, each "
            f"with {{}} in place of the label, as in {DEFAULT_TEMPLATE!r}."
        )
    return tuple(items)


def _items(name: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str):
        raise LabelError(f"`{name}` is a single string; expected a list of strings.")
    if isinstance(values, Mapping):
        raise ArgumentTypeError(
            f"`{name}` has type {type(values).__name__}; pass its .keys() or its .values()."
        )
    try:
        return list(values)
    except TypeError:
        raise ArgumentTypeError(
            f"`{name}` has type {type(values).__name__}; expected a list of strings, or another "
            "iterable."
        ) from None


def make_caption(template: Template, label: str) -> str:
    """Fills a template with a label.

    Raises:
        ArgumentTypeError: A function returned no string.
    """
    if isinstance(template, str):
        return template.replace("{}", label)
    caption = template(label)
    if not isinstance(caption, str):
        raise ArgumentTypeError(
            f"A template returns {_shorten.repr(caption)} for the label {label!r}; expected a "
            "string."
        )
    return caption
