"""Where a model's files lie: the one place where a name is given its meaning."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from hfclip.errors import ModelNotFoundError
from hfclip.releases import BUNDLED, RELEASES

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class Source:
    """The files of one model.

    Attributes:
        weights: The weight file, of any kind that `hfclip.checkpoint` reads.
        config: Its config.json, or None: then the shapes must tell.
        origin: Where it comes from, in words.
    """

    weights: Path
    config: Path | None
    origin: str


def find(name: str | Path) -> Source:
    """Finds the files that a model name, a folder or a file stands for.

    Raises:
        ModelNotFoundError: The name means nothing; the message suggests the nearest.
    """
    if name in BUNDLED:
        return _folder(Path(__file__).parent / str(name), "bundled with hfclip")
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, f"the folder {path}")
    if path.is_file():
        return _file(path)
    raise _not_found(str(name))


def _folder(path: Path, origin: str) -> Source:
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (path / name).is_file()]
    if missing:
        raise ModelNotFoundError(
            f"The folder {path} has no {' and no '.join(missing)}; a model folder holds "
            f"{CONFIG_FILE} and {WEIGHTS_FILE}."
        )
    return Source(path / WEIGHTS_FILE, path / CONFIG_FILE, origin)


def _file(path: Path) -> Source:
    # The weights of a model folder, named themselves, still belong to its configuration.
    config = path.with_name(CONFIG_FILE)
    belongs = path.name == WEIGHTS_FILE and config.is_file()
    return Source(path, config if belongs else None, f"the file {path}")


def _not_found(name: str) -> ModelNotFoundError:
    if name in RELEASES:
        return ModelNotFoundError(f"{name} is a release whose weights are not on this machine.")
    known = [*RELEASES, *BUNDLED]
    spelled = {_letters(entry): entry for entry in known}
    near = difflib.get_close_matches(_letters(name), spelled, n=1, cutoff=0.6)
    hint = f" Did you mean {spelled[near[0]]!r}?" if near else ""
    return ModelNotFoundError(
        f"Model {name} not found: no release, file or folder of that name.{hint} "
        f"Available models: {', '.join(known)}."
    )


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
