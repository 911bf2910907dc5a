"""Tells what a model's name is meant as, and refuses names that mean nothing."""

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


def check_is_name(name: str | Path) -> None:
    """Refuses what is no name.

    Raises:
        ArgumentTypeError: It is neither text nor a path.
        ModelNotFoundError: It is empty.
    """
    if not isinstance(name, str | os.PathLike):
        raise ArgumentTypeError(f"A model's name is text or a path, not {type(name).__name__}.")
    if not os.fspath(name).strip() or (isinstance(name, Path) and not name.parts):
        # Python does not tell Path("") from Path(".").
        raise ModelNotFoundError(
            f"The model's name is empty ({name!r}). Give a release, repository, file or folder; "
            'the current folder is "." as text, or Path.cwd().'
        )


def refuse_options(what: str, **options: str | None) -> None:
    """Refuses options that mean nothing for a name, instead of ignoring them.

    Raises:
        ArgumentError: An option is given.
    """
    for option, value in options.items():
        if value:
            raise ArgumentError(f"{what}: {option}={value!r} does not apply to it. Leave it out.")


def local_path(name: str | Path) -> Path | None:
    """Returns the file or folder of that name, or None if there is none.

    Raises:
        ModelNotFoundError: The system refuses to look, or finds something else, such as a pipe.
    """
    try:
        path = Path(name).expanduser()
        if path.is_dir() or path.is_file():
            return path
        is_special = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no right, no such user, too long
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelNotFoundError(f"Model {name} not found: {reason}.") from None
    if is_special:
        raise ModelNotFoundError(f"{name} is neither a file nor a folder; save it as a file first.")
    return None


def parse_repository(name: str) -> tuple[str, str | None]:
    """Splits `hf-hub:org/name@revision`.

    Returns:
        The repository's id, and the revision or None.

    Raises:
        ModelNotFoundError: The name is a path that does not exist, or no repository can have it.
    """
    if _is_path(name):
        raise ModelNotFoundError(
            f"Model {name} not found: there is no such file or folder. A relative path starts at "
            f"{Path.cwd()}."
        )
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise _not_found(name)
    if not _can_be_repository(match[1]):
        raise ModelNotFoundError(
            f"Model {name} not found: there is no such file or folder, and no repository can have "
            "that name: it has letters, digits, '-', '_' and '.', no '--' or '..', at most 96."
        )
    return match[1], match[2]


def _can_be_repository(repo_id: str) -> bool:
    """Whether the Hub allows a name for a repository."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return False
    return True


def _is_path(name: str) -> bool:
    """Whether a name can only be meant as a path; `hf-hub:` before a name says it is none."""
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
    advice = " Give a repository as org/name, without its address." if "://" in name else ""
    return ModelNotFoundError(
        f"Model {name} not found: no release, file, folder or repository of that name."
        f"{advice}{suggestion(name)} Available models: {', '.join([*RELEASES, *BUNDLED])}."
    )


def suggestion(name: str) -> str:
    """Returns a question with the nearest name (`ViT-B-16` -> `ViT-B/16`), or nothing."""
    spelled = {_letters(entry): entry for entry in [*RELEASES, *BUNDLED]}
    near = difflib.get_close_matches(_letters(name), spelled, n=1, cutoff=0.6)
    return f" Did you mean {spelled[near[0]]!r}?" if near else ""


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
