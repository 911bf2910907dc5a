"""Parses the name of a model: a release, a bundled model, a path or a repository."""

import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple

from hfclip.errors import ArgumentError, ArgumentTypeError, ModelNotFoundError
from hfclip.hub.cache import is_repository_name
from hfclip.releases import BUNDLED, RELEASES
from hfclip.sources.addresses import is_address, parse_address

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_WEIGHT_SUFFIXES = (*PICKLE_SUFFIXES, ".safetensors")
HUB_NAME = re.compile(r"(?:hf-hub:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
# A repository with a folder inside it, which `subfolder=` selects.
_IN_REPOSITORY = re.compile(
    r"(?:hf-hub:)?(\w[\w.-]*/[\w.-]+)/([\w.-]+(?:/[\w.-]+)*)/?(?:@[\w./-]+)?"
)

# The prefix of open_clip and timm, and its common misspelling.
_HUB_PREFIXES = ("hf-hub:", "hf_hub:")
_FOLDER_PREFIX = "local-dir:"
# The words by which other packages spell the nine: `openai/clip-vit-base-patch32`,
# `ViT-B-32-quickgelu`, `resnet50_clip.openai`. An empty word is left out.
_WORDS = {
    "base": "b",
    "large": "l",
    "resnet": "rn",
    **dict.fromkeys(("clip", "openai", "patch", "quickgelu", "quick", "gelu", "px", "224"), ""),
}


class Spelled(NamedTuple):
    """A name in hfclip's own spelling.

    Attributes:
        name: A release, a bundled model, a path, or `hf-hub:org/name@revision`.
        weights: The weight file that a page's address names; None if the name is no such address.
    """

    name: str | Path
    weights: str | None = None


def spelled(name: str | Path) -> Spelled:
    """Converts other spellings of a name; returns any other name unchanged.

    These are `hf_hub:org/name`, `local-dir:path` and the address of a page on the Hub.

    Raises:
        ModelNotFoundError: `local-dir:` is followed by a path that does not exist, or the address
            is not one of a model's repository.
    """
    if not isinstance(name, str):
        return Spelled(name)
    for prefix in _HUB_PREFIXES:
        if name.startswith(prefix):
            return Spelled(f"hf-hub:{name.removeprefix(prefix)}")
    if name.startswith(_FOLDER_PREFIX):
        place = name.removeprefix(_FOLDER_PREFIX)
        path = local_path(place) if place.strip() else None
        if path is None:
            raise _no_such_path(name)
        return Spelled(path)
    if not is_address(name) or ("://" not in name and local_path(name)):
        return Spelled(name)
    repo_id, revision, file = parse_address(name)
    is_weights = file is not None and file.lower().endswith(_WEIGHT_SUFFIXES)
    at = f"@{revision}" if revision else ""
    return Spelled(f"hf-hub:{repo_id}{at}", file if is_weights else None)


def check_weights(name: str, named: str | None, found: str) -> None:
    """Raises an error if an address names another weight file than hfclip reads.

    Args:
        name: The name of the repository.
        named: The weight file in the address, or None.
        found: The weight file that hfclip reads from the repository.

    Raises:
        ArgumentError: The files differ.
    """
    if named not in {None, found}:
        raise ArgumentError(
            f"The address names {named}, but hfclip reads {found} from this repository. "
            f"Give {name.removeprefix('hf-hub:')!r} to load {found}, or download {named} and give "
            "its path."
        )


def check_is_name(name: str | Path) -> None:
    """Raises an error for a value that is not a name.

    Raises:
        ArgumentTypeError: The value is neither a string nor a path.
        ModelNotFoundError: The name is empty.
    """
    if not isinstance(name, str | os.PathLike):
        raise ArgumentTypeError(f"A model's name is a str or a path, not {type(name).__name__}.")
    if not os.fspath(name).strip() or (isinstance(name, Path) and not name.parts):
        # Path("") equals Path("."), so Path(".") counts as empty too.
        raise ModelNotFoundError(
            f"The model's name is empty ({name!r}). Give a release, repository, file or folder; "
            'for the current folder, give the str "." or Path.cwd().'
        )


def refuse_options(what: str, **options: str | None) -> None:
    """Raises an error for options that do not apply to a name.

    Args:
        what: The reason, such as "ViT-B/32 is a local path".
        options: The options by name; None for those that are not given.

    Raises:
        ArgumentError: An option is given.
    """
    for option, value in options.items():
        if value:
            raise ArgumentError(f"{what}, so {option}={value!r} does not apply. Leave it out.")


def local_path(name: str | Path) -> Path | None:
    """Returns the file or folder with a name, or None if there is none.

    Raises:
        ModelNotFoundError: The path cannot be read, or is neither a file nor a folder.
    """
    try:
        path = Path(name).expanduser()
        if path.is_dir() or path.is_file():
            return path
        is_special = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no permission, unknown user, too long
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelNotFoundError(f"Model {name} not found: {reason}.") from None
    if is_special:
        raise ModelNotFoundError(f"{name} is neither a file nor a folder. Save it as a file first.")
    return None


def parse_repository(name: str) -> tuple[str, str | None]:
    """Splits a name of the form `hf-hub:org/name@revision`.

    Returns:
        The repository's id, and the revision or None.

    Raises:
        ModelNotFoundError: The name is a path that does not exist, or is invalid on the Hub.
    """
    if _is_path(name):
        raise _no_such_path(name)
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise _not_found(name)
    if not is_repository_name(match[1]):
        raise ModelNotFoundError(
            f"Model {name} not found: there is no such file or folder, and the name is invalid for "
            "a repository. Use at most 96 letters, digits, '-', '_' and '.', without '--' or '..'."
        )
    return match[1], match[2]


def _is_path(name: str) -> bool:
    """Returns whether a name can only be a path. A name that starts with `hf-hub:` cannot."""
    if name.startswith("hf-hub:") or "://" in name:
        return False
    place = name.partition("@")[0]
    return (
        name.startswith((".", "/", "~"))
        or "\\" in name
        or name.endswith("/")
        or place.count("/") > 1
        or name.lower().endswith(_WEIGHT_SUFFIXES)
    )


def _not_found(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"Model {name} not found: no release, file, folder or repository of that name."
        f"{_subfolder_hint(name)}{suggestion(name)} "
        f"Available models: {', '.join([*RELEASES, *BUNDLED])}."
    )


def _no_such_path(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"Model {name} not found: there is no such file or folder. A relative path starts at "
        f"{Path.cwd()}.{_subfolder_hint(name)}"
    )


def _subfolder_hint(name: str) -> str:
    """Returns how to name a folder inside a repository, for a name like `org/name/folder`."""
    match = _IN_REPOSITORY.fullmatch(name)
    if match is None or name.lower().endswith(_WEIGHT_SUFFIXES):
        return ""
    return (
        f' For the folder {match[2]!r} of a repository, give "{match[1]}" and '
        f'subfolder="{match[2]}" (--subfolder {match[2]}).'
    )


def suggestion(name: str) -> str:
    """Returns a question with the nearest name (`ViT-B-16` -> `ViT-B/16`), or nothing."""
    known = {_key(entry): entry for entry in [*RELEASES, *BUNDLED]}
    near = difflib.get_close_matches(_key(name), known, n=1, cutoff=0.6)
    return f" Did you mean {known[near[0]]!r}?" if near else ""


def _key(name: str) -> str:
    """Returns the letters and digits that all spellings of a release have in common."""
    words = re.findall(r"[a-z]+|\d+", name.removeprefix("hf-hub:").lower())
    return "".join(_WORDS.get(word, word) for word in words)
