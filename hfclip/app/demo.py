"""What a page shows: a model, and perhaps a collection of pictures."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from hfclip.app.limits import Limits
from hfclip.app.times import Times
from hfclip.embedding.identity import absolute_name, find_model_of, is_model, place_of
from hfclip.errors import DataError
from hfclip.images.exact import Recipe
from hfclip.releases import bundled_folder
from hfclip.sources.find import Found, find
from hfclip.zeroshot.labels import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from torch import Tensor
    from torchvision.transforms import Compose

    from hfclip.embedding.embeddings import Embeddings
    from hfclip.embedding.options import Loaded
    from hfclip.search.duplicates import Duplicates

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

# The model of a page that names neither a model nor a collection.
USUAL = "ViT-B/32"
# Results that are kept, for visitors who ask the same again.
_LABEL_LISTS, _THRESHOLDS = 16, 4
_USUAL_LABELS = ("cat", "dog", "bird", "car", "house", "person")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Beginning(NamedTuple):
    """What the fields of a page hold when it is opened.

    Attributes:
        labels: The labels.
        templates: The templates.
        words: The words of the search.
        pictures: Example pictures, as files.
    """

    labels: tuple[str, ...]
    templates: tuple[str, ...]
    words: str
    pictures: tuple[Path, ...]


class Kept(Generic[_Key, _Value]):
    """Keeps the last values of a function. Threads may share it, and compute one at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[_Key, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _Key, compute: Callable[[], _Value]) -> _Value:
        """Returns the value of a key, and computes it if it is not kept."""
        with self._lock:
            if key not in self._values:
                value = compute()
                if len(self._values) >= self._most:
                    self._values.popitem(last=False)
                self._values[key] = value
            self._values.move_to_end(key)
            return self._values[key]


@dataclass
class Demo:
    """A model, and perhaps a collection, as a page shows them.

    The model is loaded when it is first used, so that the page is shown before that.

    Attributes:
        model: The name of the model, or the path of its file or folder.
        source: The files of the model.
        load: A function that loads the model.
        embeddings: The collection, or None.
        limits: What the page accepts.
        times: How long the last answers took.
        label_features: The features of the last lists of labels, by labels and templates.
        duplicates: The near-duplicates of the collection, by threshold.
    """

    model: str
    source: Found
    load: "Callable[[], Loaded]"
    embeddings: "Embeddings | None" = None
    limits: Limits = field(default_factory=Limits)
    times: Times = field(default_factory=Times)
    label_features: "Kept[tuple[tuple[str, ...], tuple[str, ...]], Tensor]" = field(
        default_factory=lambda: Kept(_LABEL_LISTS)
    )
    duplicates: "Kept[float, Duplicates]" = field(default_factory=lambda: Kept(_THRESHOLDS))
    _loaded: "Kept[str, Loaded]" = field(default_factory=lambda: Kept(1))

    @property
    def loaded(self) -> "Loaded":
        """The model. It is loaded at the first use; other threads wait for that.

        Raises:
            HfclipError: As `hfclip.load`.
        """
        return self._loaded.get(self.model, self.load)

    @property
    def name(self) -> str:
        """The name of the model, without the folders of this machine and without a revision."""
        if not Path(self.model).is_absolute():
            return self.model.partition("@")[0]
        repository, _ = place_of(self.source.weight_files[0])
        return repository or Path(self.model).name

    @cached_property
    def preprocess(self) -> "Compose":
        """The exact preprocess of the model."""
        from hfclip.images.preprocess import transform_of  # noqa: PLC0415  # imports torch

        return transform_of(Recipe.of(self.loaded.model.config))

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the size to which the preprocess resizes a picture of a size."""
        return Recipe.of(self.loaded.model.config).resized(size)

    @property
    def beginning(self) -> Beginning:
        """What the fields hold when the page is opened."""
        if self.model == "digits":
            pictures = tuple(bundled_folder("digits") / f"{word}.png" for word in _DIGITS)
            return Beginning(_DIGITS, ("a handwritten {}",), "a handwritten two", pictures)
        own = self.source.labels
        if own is None:
            return Beginning(_USUAL_LABELS, (DEFAULT_TEMPLATE,), "", ())
        return Beginning(own.labels, own.templates, "", ())


def open_demo(
    model: str | None = None,
    embeddings: "Embeddings | Path | str | None" = None,
    *,
    device: str | None = None,
    limits: Limits | None = None,
    namespace: str | None = None,
    base: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
) -> Demo:
    """Finds the model of a page, and opens its collection. The model is loaded at its first use.

    Args:
        model: A name, folder, file or repository, as for `hfclip.load`. By default the model of
            the collection, else ViT-B/32.
        embeddings: A collection of pictures that `hfclip embed` has written, or its folder.
        device: The device of the model. None selects the GPU if there is one.
        limits: What the page accepts.
        namespace: The account whose copies of the releases are used. This and the following
            arguments are those of `hfclip.load`. A collection names its own.
        base: The model from which a weight file was fine-tuned.
        subfolder: The folder inside a folder or repository.
        variant: The variant of the weights.

    Raises:
        DataError: The folder is no collection of pictures, has no embedding, or its model is
            another one.
        HfclipError: As `hfclip.load`.
    """
    if device not in (None, "cpu"):
        _check_device(device)
    limits = limits or Limits()
    if embeddings is not None:
        return _with_collection(model, embeddings, device, limits)
    name = model or USUAL
    source = find(name, namespace=namespace, base=base, subfolder=subfolder, variant=variant)

    def load() -> "Loaded":
        from hfclip.embedding.options import Options, load_encoder  # noqa: PLC0415  # needs torch

        options = Options(name, namespace, base, subfolder, variant, device, preprocess="exact")
        return load_encoder(options, source)

    return Demo(absolute_name(name), source, load, None, limits)


def _with_collection(
    model: str | None, embeddings: "Embeddings | Path | str", device: str | None, limits: Limits
) -> Demo:
    from hfclip.embedding.embeddings import Embeddings  # noqa: PLC0415  # needs pyarrow

    opened = embeddings if isinstance(embeddings, Embeddings) else Embeddings(embeddings)
    _check(opened, model)
    manifest = opened.manifest
    source = find_model_of(manifest)

    def load() -> "Loaded":
        from hfclip.embedding.options import load_model_of  # noqa: PLC0415  # needs torch

        return load_model_of(manifest, device, source)

    return Demo(manifest.name, source, load, opened, limits)


def _check_device(device: str | None) -> None:
    from hfclip.devices import choose_device  # noqa: PLC0415  # imports torch

    choose_device(device)


def _check(embeddings: "Embeddings", model: str | None) -> None:
    manifest = embeddings.manifest
    if manifest.kind != "images":
        raise DataError(
            f"{embeddings.out} is a collection of texts; the page shows collections of pictures. "
            "Use `hfclip search`."
        )
    if not len(embeddings):
        raise DataError(f"{embeddings.out} has no embedding to search.")
    if model is not None and not is_model(model, manifest):
        raise DataError(
            f"The model is {model}, but {embeddings.out} was made with {manifest.model}. Leave out "
            "the model."
        )
