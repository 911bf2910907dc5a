"""The labels of a fine-tuned model: labels.json, an optional file in each layout.

Its content is `{"labels": ["zero", "one"], "templates": ["a handwritten {}"]}`.
"""

import codecs
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfclip.errors import ConfigError

logger = logging.getLogger(__name__)

LABELS_FILE = "labels.json"
# The largest file that is read or written. A label has about 20 bytes.
MAX_BYTES = 8 * 2**20

_KEYS = ("labels", "templates")


@dataclass(frozen=True)
class LabelSet:
    """The labels that a model was fine-tuned for, and the templates of their captions.

    Attributes:
        labels: The labels, in order.
        templates: Captions with {} in place of the label.

    Raises:
        ConfigError: A list is empty, an entry is no string, empty or repeated, or a template has
            no {}.
    """

    labels: tuple[str, ...]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in _KEYS:
            object.__setattr__(self, name, _strings(name, getattr(self, name)))
        lacking = [template for template in self.templates if "{}" not in template]
        if lacking:
            raise ConfigError(
                f"The template {lacking[0]!r} has no {{}} in place of the label, as in "
                "'a photo of a {}'."
            )

    def to_json(self) -> str:
        """Returns the text of labels.json. The same labels always give the same text.

        Raises:
            ConfigError: The text is longer than `MAX_BYTES`.
        """
        values = {"labels": list(self.labels), "templates": list(self.templates)}
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        size = len(text.encode())
        if size > MAX_BYTES:
            raise ConfigError(
                f"The {len(self.labels):,} labels take {size:,} bytes; {LABELS_FILE} has at most "
                f"{MAX_BYTES:,}. Use fewer or shorter labels."
            )
        return text


def read_labels(path: Path) -> LabelSet | None:
    """Reads a labels.json in UTF-8, with or without a byte order mark.

    Other programs use this file name too. A file without the two keys of hfclip, or larger than
    hfclip writes it, is ignored with a warning.

    Returns:
        The labels, or None if the file does not have the form of hfclip.

    Raises:
        ConfigError: The file cannot be read, is not JSON, or its labels or templates are not
            valid.
    """
    content = _read(path)
    values = _parsed(content, path) if len(content) <= MAX_BYTES else None
    if not isinstance(values, dict) or not values.keys() >= set(_KEYS):
        logger.warning(
            "%s is ignored: it is not a JSON object with `labels` and `templates` in at most %s "
            "bytes.",
            path,
            f"{MAX_BYTES:,}",
        )
        return None
    try:
        return LabelSet(values["labels"], values["templates"])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error} Correct or remove the file.") from None


def _read(path: Path) -> bytes:
    """Reads at most one byte more than `MAX_BYTES`."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error


def _parsed(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content.removeprefix(codecs.BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}. Restore or remove it.") from error


def _strings(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """Returns a non-empty list of distinct, non-empty strings as a tuple."""
    if not isinstance(values, list | tuple) or not values:
        raise ConfigError(f"`{name}` is {_shown(values)}; expected a list with at least one entry.")
    wrong = [value for value in values if not isinstance(value, str) or not _is_text(value)]
    if wrong:
        raise ConfigError(f"`{name}` holds {_shown(wrong[0])}; expected text in each entry.")
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"`{name}` holds {_shown(value)} more than once.")
        seen.add(value)
    return tuple(values)


def _is_text(value: str) -> bool:
    """Returns whether a string is not empty and can be written as UTF-8."""
    return bool(value.strip()) and not any("\ud800" <= each <= "\udfff" for each in value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
