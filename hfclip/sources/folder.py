"""Reads the layout of a model's folder: on this machine, or in a repository at a commit."""

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self

from hfclip.config import read_json
from hfclip.errors import ArgumentError, ConfigError, RepositoryError
from hfclip.layouts.detect import is_transformers_clip
from hfclip.layouts.files import CONFIG_FILE, OPEN_CLIP_CONFIG_FILE, Shard, Source
from hfclip.layouts.native import is_hfclip
from hfclip.layouts.weight_files import (
    Choice,
    choices,
    existing_choices,
    is_index,
    read_index,
    variants_in,
)
from hfclip.sources.configuration import labels_in, read_config
from hfclip.sources.naming import PICKLE_SUFFIXES

# Entries of subfolders that are searched for an error message.
_MAX_ENTRIES = 10_000


class Part(NamedTuple):
    """The files of a folder or repository that make the model.

    Attributes:
        subfolder: The folder inside it, as `a/b`, or an empty text for the folder itself.
        variant: The part of the weights' file names that marks another dtype, such as "fp16".
    """

    subfolder: str = ""
    variant: str | None = None

    @classmethod
    def of(cls, subfolder: str | None, variant: str | None) -> Self:
        """Checks and returns the part that a caller asks for.

        Raises:
            ArgumentError: The subfolder leads out of the folder, or the variant is not a part of a
                file name.
        """
        choices(variant)
        return cls(_plain(subfolder or ""), variant)

    def name(self, filename: str) -> str:
        """Returns the name of a file of the part in the whole folder or repository."""
        return f"{self.subfolder}/{filename}" if self.subfolder else filename

    def names_in(self, names: Iterable[str]) -> set[str]:
        """Returns the names of the files in the subfolder, relative to it."""
        prefix = self.name("")
        return {name[len(prefix) :] for name in names if name.startswith(prefix)}

    def __str__(self) -> str:
        """Returns ", folder a/b, variant fp16", as it follows the name of a repository."""
        subfolder = f", folder {self.subfolder}" if self.subfolder else ""
        return f"{subfolder}, variant {self.variant}" if self.variant else subfolder


# The model in the folder or repository itself.
WHOLE = Part()


@dataclass(frozen=True)
class Folder:
    """A folder that may hold a model.

    Attributes:
        names: The names of the files. Those in subfolders contain a slash.
        get: Returns the path of a file, verified where a hash is known.
        origin: A description of the folder.
        check_cached: Raises an error if some of several files cannot be had at present.
    """

    names: Set[str]
    get: Callable[[str], Path]
    origin: str
    check_cached: Callable[[Iterable[str]], None] = lambda _: None


def local_folder(path: Path, part: Part, origin: str) -> Folder:
    """Returns a folder on this machine.

    Raises:
        RepositoryError: It has no such subfolder.
    """
    inner = path / part.subfolder
    if not inner.is_dir():
        raise RepositoryError(
            f"{origin} has no folder {part.subfolder!r}. Its folders are "
            f"{', '.join(sorted(entry.name for entry in path.iterdir() if entry.is_dir())[:5])}."
        )
    names = {entry.name for entry in inner.iterdir() if entry.is_file()}
    if not existing_choices(names, part.variant):  # for the error message, which names subfolders
        entries = islice(inner.glob("*/*"), _MAX_ENTRIES)
        names |= {entry.relative_to(inner).as_posix() for entry in entries}
    return Folder(names, inner.joinpath, f"{origin}{part}")


def find_layout(folder: Folder, variant: str | None = None) -> Source:
    """Detects the layout of a folder by its files, and gets the files of the model.

    Raises:
        RepositoryError: There is no model in a known layout, only another variant, or a shard is
            missing.
        ConfigError: The configuration is invalid.
        CheckpointError: The index of the shards is invalid.
    """
    config_file, weights_file = _chosen(folder, variant)
    try:
        config = read_config(config_file, folder.names, folder.get)
        labels = labels_in(folder.names, folder.get)
    except ConfigError as error:
        raise ConfigError(f"{folder.origin}: {error}") from None
    weights, shards = get_weights(folder, weights_file)
    return Source(weights, config, folder.origin, shards=shards, labels=labels)


def get_weights(folder: Folder, name: str) -> tuple[Path, tuple[Shard, ...]]:
    """Gets a weight file, or an index and all of its shards.

    Raises:
        RepositoryError: A shard is missing.
        CheckpointError: The index is invalid.
    """
    path = folder.get(name)
    if not is_index(name):
        return path, ()
    listed = read_index(path)
    folder.check_cached(listed)
    missing = [shard for shard in listed if shard not in folder.names]
    if missing:
        raise RepositoryError(
            f"{folder.origin} lacks {len(missing)} of the {len(listed)} shards that {name} lists: "
            f"{', '.join(missing[:5])}. Get the missing files, or ask the owner for them."
        )
    return path, tuple(Shard(folder.get(shard), tensors) for shard, tensors in listed.items())


def choose(names: Set[str], get: Callable[[str], Path], variant: str | None) -> Choice | None:
    """Chooses the configuration and the weights of a folder, or None if there are none.

    Raises:
        ConfigError: A config.json that decides the choice cannot be read.
    """
    found = existing_choices(names, variant)
    others = [choice for choice in found if choice.config == OPEN_CLIP_CONFIG_FILE]
    if found and found[0].config == CONFIG_FILE and others:
        # The safetensors of config.json come first, unless they are timm's: an image tower only.
        values = read_json(get(CONFIG_FILE))
        if not is_transformers_clip(values) and not is_hfclip(values):
            return others[0]
    return found[0] if found else None


def _chosen(folder: Folder, variant: str | None) -> Choice:
    try:
        choice = choose(folder.names, folder.get, variant)
    except ConfigError as error:
        raise ConfigError(f"{folder.origin}: {error}") from None
    if choice is None:
        raise _unreadable(folder, variant)
    return choice


def _unreadable(folder: Folder, variant: str | None) -> RepositoryError:
    """Returns the error for a folder without the files of a model, with the likely remedy."""
    names, origin = folder.names, folder.origin
    variants = variants_in(names)
    known = ", ".join(f"{name!r} ({file})" for name, file in variants.items())
    if variant is not None and (variants or existing_choices(names)):
        remedy = " Leave out variant= (--variant)." if existing_choices(names) else ""
        return RepositoryError(
            f"{origin} has no weights of the variant {variant!r}. It has the variants "
            f"{known or 'none'}.{remedy}"
        )
    if variants:
        first = next(iter(variants))
        return RepositoryError(
            f"{origin} holds its weights only as variants: {known}. Choose one: "
            f'variant="{first}" (--variant {first}).'
        )
    inside = _folders_with_models(names, variant)
    if inside:
        return RepositoryError(
            f"{origin} holds no CLIP in a known layout, but has model files in the folders "
            f'{", ".join(map(repr, inside[:5]))}. Choose one: subfolder="{inside[0]}" '
            f"(--subfolder {inside[0]})."
        )
    pickles = sorted(name for name in names if name.endswith(PICKLE_SUFFIXES))
    if pickles:
        return RepositoryError(
            f"{origin} holds no CLIP in a known layout, but the files of torch.save "
            f"{', '.join(pickles[:3])}. hfclip fetches pytorch_model.bin beside config.json, and "
            "open_clip_pytorch_model.bin beside open_clip_config.json. Download the file yourself, "
            "and give its path if it is a state dict."
        )
    return RepositoryError(
        f"{origin} holds no CLIP in a known layout: there is neither config.json with "
        "model.safetensors or pytorch_model.bin, nor open_clip_config.json with "
        "open_clip_model.safetensors or open_clip_pytorch_model.bin. "
        f"It holds {', '.join(sorted(names)[:5]) or 'no files'}."
    )


def _folders_with_models(names: Iterable[str], variant: str | None) -> list[str]:
    folders = sorted({name.rpartition("/")[0] for name in names} - {""})
    return [path for path in folders if existing_choices(Part(path).names_in(names), variant)]


def _plain(subfolder: str) -> str:
    """Returns a subfolder as `a/b`."""
    parts = PurePosixPath(subfolder).parts
    if ".." in parts or "\\" in subfolder or "\0" in subfolder or subfolder.startswith("/"):
        raise ArgumentError(
            f"subfolder is {subfolder!r}; expected a folder inside the model's folder or "
            "repository, such as 'clip' or 'models/clip', with / between the names."
        )
    return "/".join(parts)
