"""The manifest of a collection: which model, options and sources made its embeddings."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from types import NoneType
from typing import Any, Literal

from hfclip.embedding.stores import AnyStore, open_store
from hfclip.errors import DataError

NAME = "manifest.json"
# The options that change embeddings, and what sets them on the command line.
_OPTIONS = {
    "kind": "--text",
    "preprocess": "--preprocess",
    "precision": "--precision, --device",
    "normalized": "--raw",
    "dimension": "--model",
    "dtype": "--dtype",
    "background": "--background",
    "auto_orient": "--auto-orient",
}
_TYPES: dict[str, tuple[type, ...]] = {
    "repository": (str, NoneType),
    "commit": (str, NoneType),
    "base": (str, NoneType),
    "subfolder": (str, NoneType),
    "variant": (str, NoneType),
    "sha256": (str, NoneType),
    "normalized": (bool,),
    "auto_orient": (bool,),
    "dimension": (int,),
    "max_pixels": (int,),
    "inputs": (int,),
    "background": (tuple, NoneType),
    "sources": (tuple,),
}


@dataclass(frozen=True)
class Manifest:
    """The model, the options and the sources of a collection.

    Attributes:
        name: The name of the model, or the absolute path of its files.
        repository: The repository on the Hub, or None.
        commit: The commit of the repository, or None.
        sha256: The sha256 of the weights, or None.
        config_digest: The sha256 of the model's configuration.
        preprocess: The implementation of the preprocessing.
        precision: The precision of the model, such as "float32".
        normalized: Whether the embeddings have length 1.
        dimension: The width of the embeddings.
        dtype: The type of the embeddings in the parts.
        kind: Whether the inputs are pictures or texts.
        background: The colour below transparent pixels, or None if alpha is dropped.
        auto_orient: Whether the EXIF orientation is applied.
        max_pixels: The largest number of pixels of a picture that is decoded.
        sources: The sources as they were given.
        version: The version of hfclip that wrote the manifest.
        base: The model from which a weight file was fine-tuned, or None.
        subfolder: The folder inside a folder or repository, or None.
        variant: The variant of the weights, or None.
        plan_digest: The digest of the last plan.
        inputs: The number of inputs in the last plan.
        created: The time of the first run, in UTC, as in "2026-11-27T03:10:00Z".
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
    kind: Literal["images", "texts"]
    background: tuple[int, int, int] | None
    auto_orient: bool
    max_pixels: int
    sources: tuple[str, ...]
    version: str
    base: str | None = None
    subfolder: str | None = None
    variant: str | None = None
    plan_digest: str = ""
    inputs: int = 0
    created: str = ""

    def to_json(self) -> str:
        """Returns the manifest as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Reads a manifest from JSON text.

        Raises:
            DataError: The text is not a manifest, or a newer version of hfclip wrote it.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise DataError(f"{NAME} is not JSON ({error}).") from error
        if not isinstance(content, dict):
            raise DataError(f"{NAME} holds {type(content).__name__}; expected an object.")
        names = [field.name for field in fields(cls)]
        unknown = sorted(content.keys() - set(names))
        if unknown:
            raise DataError(
                f"{NAME} has fields that this version does not know: {', '.join(unknown)}. hfclip "
                f"{content.get('version', 'of an unknown version')} wrote it. Update hfclip."
            )
        missing = [name for name in names if name not in content]
        if missing:
            raise DataError(f"{NAME} lacks the fields {', '.join(missing)}. It is damaged.")
        for name in ("sources", "background"):
            if isinstance(content[name], list):
                content[name] = tuple(content[name])
        _check_types(content)
        return cls(**content)

    @property
    def model(self) -> str:
        """The model in words: its name, repository, commit and sha256."""
        return _model(self)

    def has_model_of(self, other: "Manifest") -> bool:
        """Returns whether the weights and the configuration of the models are the same."""
        return _weights(self) == _weights(other) and self.config_digest == other.config_digest

    def check_same(self, other: "Manifest") -> None:
        """Checks that another run makes the same embeddings as this manifest describes.

        The limit of pixels may grow. Weights with the same sha256 may have another name.

        Raises:
            DataError: The model or an option differs; the message names each difference.
        """
        differences = list(_differences(self, other))
        if differences:
            raise DataError(
                f"The folder holds embeddings that were made differently: {'; '.join(differences)}."
                " Use the same model and options, or name another folder."
            )


def read_manifest(out: AnyStore) -> Manifest:
    """Reads the manifest of a collection.

    Raises:
        DataError: There is no manifest, a malformed one, or one of a newer version, or a request
            fails.
    """
    store = open_store(out)
    try:
        text = store.read(NAME).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{store} is not a folder that `hfclip embed` wrote: {NAME} cannot be read ({error})."
        ) from error
    try:
        return Manifest.from_json(text)
    except DataError as error:
        raise DataError(f"{store}: {error}") from error


def find_manifest(out: AnyStore) -> Manifest | None:
    """Reads the manifest of a collection by one request. Returns None if there is none.

    Raises:
        DataError: The manifest is malformed, or of a newer version, or a request fails.
    """
    try:
        return read_manifest(out)
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def write_manifest(out: AnyStore, manifest: Manifest) -> None:
    """Writes the manifest of a collection, whole or not at all."""
    open_store(out).write_text(NAME, manifest.to_json())


def _check_types(content: dict[str, Any]) -> None:
    for name, value in content.items():
        expected = _TYPES.get(name, (str,))
        # bool is a subclass of int
        if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
            kinds = " or ".join(kind.__name__ for kind in expected)
            raise DataError(f"{NAME}: {name} is {value!r}; expected {kinds}. The file is damaged.")


def _differences(old: Manifest, new: Manifest) -> Iterator[str]:
    if _weights(old) != _weights(new):
        yield f"the model is {_model(old)}, now {_model(new)} (--model)"
    elif old.config_digest != new.config_digest:
        yield f"the configuration of {_model(old)} has changed (--model)"
    for name, option in _OPTIONS.items():
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            yield f"{name} is {before!r}, now {now!r} ({option})"
    if new.max_pixels < old.max_pixels:
        yield (
            f"max_pixels is {old.max_pixels:,}, now {new.max_pixels:,}, but it may only grow "
            "(--max-pixels)"
        )


def _weights(manifest: Manifest) -> tuple[str | None, ...]:
    if manifest.sha256 is not None:
        return (manifest.sha256,)
    return (None, manifest.name, manifest.repository, manifest.commit)


def _model(manifest: Manifest) -> str:
    place = manifest.repository and f"{manifest.repository} at {(manifest.commit or '')[:12]}"
    weights = manifest.sha256 and f"sha256 {manifest.sha256[:12]}"
    facts = ", ".join(fact for fact in (place, weights) if fact)
    return f"{manifest.name!r} ({facts})" if facts else repr(manifest.name)
