"""Parses the name of a model: a release, a bundled model, a path or a repository."""

import difflib
import os
import re
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from hfclip.errors import ArgumentError, ArgumentTypeError, ModelNotFoundError
from hfclip.releases import BUNDLED, RELEASES

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_WEIGHT_SUFFIXES = (*PICKLE_SUFFIXES, ".safetensors")
HUB_NAME = re.compile(r"(?:hf-hub:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
# A repository with a folder inside it, which `subfolder=` selects.
_IN_REPOSITORY = re.compile(
    r"(?:hf-hub:)?(\w[\w.-]*/[\w.-]+)/([\w.-]+(?:/[\w.-]+)*)/?(?:@[\w./-]+)?"
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
        raise ModelNotFoundError(
            f"Model {name} not found: there is no such file or folder. A relative path starts at "
            f"{Path.cwd()}.{_subfolder_hint(name)}"
        )
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise _not_found(name)
    if not _can_be_repository(match[1]):
        raise ModelNotFoundError(
            f"Model {name} not found: there is no such file or folder, and the name is invalid for "
            "a repository. Use at most 96 letters, digits, '-', '_' and '.', without '--' or '..'."
        )
    return match[1], match[2]


def _can_be_repository(repo_id: str) -> bool:
    """Returns whether the Hub allows a name for a repository."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return False
    return True


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
    advice = " Give a repository as org/name, without the URL." if "://" in name else ""
    return ModelNotFoundError(
        f"Model {name} not found: no release, file, folder or repository of that name."
        f"{advice}{_subfolder_hint(name)}{suggestion(name)} "
        f"Available models: {', '.join([*RELEASES, *BUNDLED])}."
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
    spelled = {_letters(entry): entry for entry in [*RELEASES, *BUNDLED]}
    near = difflib.get_close_matches(_letters(name), spelled, n=1, cutoff=0.6)
    return f" Did you mean {spelled[near[0]]!r}?" if near else ""


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
