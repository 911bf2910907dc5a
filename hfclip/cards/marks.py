"""Comments in a model card that tell the text of hfclip from the text of a person.

Two marks are used, both HTML comments, which a page does not show:

- `hfclip:files` encloses the table of files with their hashes. hfclip renews this table whenever
  it writes the files.
- `hfclip:generated` is the last line. It holds the facts that the card was made from and the sha256
  of the text above. If the sha256 still matches, nobody has edited the card.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]  # comes with huggingface_hub

from hfclip.errors import ConfigError

_FILES = re.compile(r"<!-- hfclip:files -->\r?\n(.*?)<!-- /hfclip:files -->", re.DOTALL)
_SEAL = re.compile(r"<!-- hfclip:generated (\{.*\}) -->\s*\Z")
_HEAD = re.compile(r"\A\ufeff?---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.M)


def seal(text: str, about: Mapping[str, Any] | None) -> str:
    """Returns the text with a last line that holds `about` and the sha256 of both.

    Args:
        text: A generated card.
        about: The facts it was made from, in types that JSON has.
    """
    text = f"{text.rstrip()}\n\n"
    values = {"about": about, "sha256": _digest(text, about)}
    # "-->" inside the JSON would end the comment.
    content = json.dumps(values, sort_keys=True).replace(">", "\\u003e")
    return f"{text}<!-- hfclip:generated {content} -->\n"


def unseal(text: str) -> tuple[bool, dict[str, Any] | None]:
    """Returns whether hfclip wrote the whole text, and the facts that it was made from."""
    match = _SEAL.search(text)
    if match is None:
        return False, None
    try:
        values = json.loads(match[1])
        about, digest = values["about"], values["sha256"]
    except (ValueError, KeyError, TypeError):
        return False, None
    if digest != _digest(text[: match.start()], about):
        return False, None
    return True, about


def unsealed(text: str) -> str:
    """Returns the text above the last line that `seal` wrote."""
    match = _SEAL.search(text)
    return text[: match.start()] if match else text


def files_table(text: str) -> str | None:
    """Returns the marked table of files, or None if the card has none."""
    match = _FILES.search(text)
    return match[1] if match else None


def with_files_of(text: str, other: str) -> str:
    """Returns the text with the table of files of another card; all else stays byte for byte."""
    ours, theirs = _FILES.search(text), _FILES.search(other)
    if ours is None or theirs is None or _lines(ours[1]) == _lines(theirs[1]):
        return text
    return text[: ours.start(1)] + theirs[1] + text[ours.end(1) :]


def head(text: str) -> dict[str, Any]:
    """Reads the metadata at the head of a card; empty if there is none.

    Raises:
        ConfigError: The head is not YAML, or is no mapping.
    """
    match = _HEAD.match(text)
    if match is None:
        return {}
    try:
        values = yaml.safe_load(match["yaml"])
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"The head of README.md is not YAML: {reason}. Mend it.") from error
    if not isinstance(values, dict | None):
        raise ConfigError("The head of README.md is YAML, but no mapping of names to values.")
    return values or {}


def with_head(text: str, values: Mapping[str, Any]) -> str:
    """Returns the text with these values in its head; the text below stays byte for byte."""
    known = head(text) if values else {}
    if all(known.get(key) == value for key, value in values.items()):
        return text
    match = _HEAD.match(text)
    body = text[match.end() :] if match else text
    return f"---\n{_dumped({**known, **values})}---\n{body}"


def _dumped(values: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return text


def _digest(text: str, about: Any) -> str:
    content = json.dumps(about, sort_keys=True) + "\n".join(_lines(text))
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def _lines(text: str) -> list[str]:
    """Lines without their ends: git may turn each into CRLF."""
    return text.replace("\r\n", "\n").split("\n")
