"""Comments in a model card that mark the text written by hfclip.

There are two marks. Both are HTML comments, which a web page does not show:

- `hfclip:files` encloses the table of files with their hashes. hfclip updates this table whenever
  it writes the files.
- `hfclip:generated`, the seal, is the last line. It holds the facts that the card was generated
  from and the sha256 of the text above. If the sha256 matches, nobody has edited the card.
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
    """Appends the seal: a line with `about` and the sha256 of the text and `about`.

    Args:
        text: A generated card.
        about: The facts that the card was generated from, in JSON types.
    """
    text = f"{text.rstrip()}\n\n"
    values = {"about": about, "sha256": _digest(text, about)}
    # "-->" inside the JSON would end the comment.
    content = json.dumps(values, sort_keys=True).replace(">", "\\u003e")
    return f"{text}<!-- hfclip:generated {content} -->\n"


def unseal(text: str) -> tuple[bool, dict[str, Any] | None]:
    """Returns whether the card is unedited, and if so, the facts in its seal."""
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
    """Returns the text without the seal."""
    match = _SEAL.search(text)
    return text[: match.start()] if match else text


def files_table(text: str) -> str | None:
    """Returns the marked table of files, or None if the card has none."""
    match = _FILES.search(text)
    return match[1] if match else None


def with_files_of(text: str, other: str) -> str:
    """Replaces the table of files by that of another card and changes nothing else."""
    ours, theirs = _FILES.search(text), _FILES.search(other)
    if ours is None or theirs is None or _lines(ours[1]) == _lines(theirs[1]):
        return text
    return text[: ours.start(1)] + theirs[1] + text[ours.end(1) :]


def head(text: str) -> dict[str, Any]:
    """Reads the metadata at the head of a card; returns an empty dict if there is no head.

    Raises:
        ConfigError: The head is not YAML, or not a mapping.
    """
    match = _HEAD.match(text)
    if match is None:
        return {}
    try:
        values = yaml.safe_load(match["yaml"])
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"The head of README.md is not YAML: {reason}. Correct it.") from error
    if not isinstance(values, dict | None):
        raise ConfigError(
            "The head of README.md is YAML, but not a mapping of names to values. Correct it."
        )
    return values or {}


def with_head(text: str, values: Mapping[str, Any]) -> str:
    """Sets these values in the head and does not change the text below it."""
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
    """Splits into lines with LF and CRLF as equals, because git may convert line endings."""
    return text.replace("\r\n", "\n").split("\n")
