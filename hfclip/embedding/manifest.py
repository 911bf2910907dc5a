"""The manifest of a collection: which model and options made its embeddings."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from hfclip.atomic import write_text
from hfclip.errors import DataError

NAME = "manifest.json"
_LOCK = ".lock"
# What may differ from run to run: more files give another plan.
_FREE = ("version", "plan_digest")


@dataclass(frozen=True)
class Manifest:
    """The model and the options of a collection.

    Attributes:
        name: The name of the model as it was given.
        repository: The repository on the Hub, or None.
        commit: The commit of the repository, or None.
        sha256: The sha256 of the weights, or None.
        config_digest: The sha256 of the model's configuration.
        preprocess: The implementation of the preprocessing.
        precision: The precision of the model, such as "float32".
        normalized: Whether the embeddings have length 1.
        dimension: The width of the embeddings.
        dtype: The type of the embeddings in the parts.
        version: The version of hfclip.
        plan_digest: The digest of the last plan.
        kind: Whether the inputs are pictures or texts.
    """

    name: str
    repository: str | None
    commit: str | None
    sha256: str | None
    config_digest: str
    preprocess: Literal["exact", "fast"]
    precision: str
    normalized: bool
    dimension: int
    dtype: Literal["float16", "float32"]
    version: str
    plan_digest: str
    kind: Literal["images", "texts"]

    def to_json(self) -> str:
        """Returns the manifest as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Reads the manifest from JSON text.

        Raises:
            DataError: The text is not a manifest.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise DataError(f"{NAME} is not the manifest of a collection ({error}).") from error

    def check_same(self, other: "Manifest") -> None:
        """Checks that another run makes the same kind of embeddings. Versions may differ.

        Raises:
            DataError: The model or an option differs; the message names each difference.
        """
        differing = [
            f"{field.name} is {getattr(self, field.name)!r}, now {getattr(other, field.name)!r}"
            for field in fields(self)
            if field.name not in _FREE and getattr(self, field.name) != getattr(other, field.name)
        ]
        if differing:
            raise DataError(
                f"The folder holds embeddings made differently: {'; '.join(differing)}. Use the "
                "same model and options, or another folder."
            )


def read_manifest(out: Path) -> Manifest:
    """Reads the manifest of a collection.

    Raises:
        DataError: The folder holds no manifest, or a malformed one.
    """
    try:
        return Manifest.from_json((out / NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{out} is no collection: {NAME} cannot be read ({error}).") from error


@contextmanager
def opened(out: Path, manifest: Manifest) -> Iterator[None]:
    """Locks a collection for writing, checks its manifest, and writes the new one.

    Raises:
        DataError: Another process writes to the folder, another model or other options made its
            embeddings, or it holds other files.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        if (out / NAME).exists():
            read_manifest(out).check_same(manifest)
        elif any(path.name != _LOCK and not path.name.endswith(".part") for path in out.iterdir()):
            raise DataError(f"{out} holds other files. Name a folder that is new or empty.")
        write_text(out / NAME, manifest.to_json())
        yield


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Holds a lock that the system releases when the process ends, also if it is killed."""
    with (out / _LOCK).open("a+b") as file:
        try:
            _lock(file.fileno())
        except OSError as error:
            raise DataError(
                f"Another process writes to {out}. Wait until it ends, or name another folder."
            ) from error
        yield


def _lock(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt  # noqa: PLC0415

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl  # noqa: PLC0415

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
