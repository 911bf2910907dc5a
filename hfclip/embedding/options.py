"""The options of `hfclip embed`, and the model that they describe."""

import hashlib
import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hfclip.devices import choose_device
from hfclip.embedding.decoding import MAX_PIXELS, Reader
from hfclip.embedding.encode import Encoder, Towers
from hfclip.embedding.manifest import Manifest
from hfclip.errors import DataError, OptimizationError
from hfclip.fast.optimize import optimize
from hfclip.fast.processor import has_instructions
from hfclip.hub.integrity import Digest, compute, matches
from hfclip.images.exact import Recipe
from hfclip.loading import load_source
from hfclip.releases import BUNDLED, RELEASES
from hfclip.sources.find import find
from hfclip.sources.naming import local_path
from hfclip.version import __version__

if TYPE_CHECKING:
    import torch

    from hfclip.layouts.files import Source
    from hfclip.model import CLIP

# What a GPU computes in, by the option.
_ON_GPU = {"auto": "float16", "fp32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Options:
    """The options of a run that change its embeddings or its speed.

    Attributes:
        model: A name, folder, file or repository.
        namespace: The account whose copies of the releases are used.
        base: The model from which a weight file was fine-tuned.
        subfolder: The folder inside a folder or repository.
        variant: The variant of the weights.
        device: The device. None selects the GPU if there is one.
        kind: Whether the inputs are pictures or texts.
        preprocess: The implementation of the preprocess.
        precision: "fp32", "bf16", or "auto" for float32 on a CPU and float16 on a GPU.
        raw: Whether the embeddings keep their length instead of being normalised.
        dtype: The type of the embeddings in the files.
        auto_orient: Whether to apply the EXIF orientation.
        max_pixels: The largest number of pixels of a picture that is decoded.
        background: A colour below transparent pixels; None drops the alpha channel.
        batch_size: Pictures per batch; None for the device's default.
        workers: Threads that read pictures; None for one for each core.
    """

    model: str = "ViT-B/32"
    namespace: str | None = None
    base: str | None = None
    subfolder: str | None = None
    variant: str | None = None
    device: str | None = None
    kind: Literal["images", "texts"] = "images"
    preprocess: Literal["exact", "fast"] = "fast"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    raw: bool = False
    dtype: Literal["float16", "float32"] = "float16"
    auto_orient: bool = True
    max_pixels: int = MAX_PIXELS
    background: tuple[int, int, int] | None = None
    batch_size: int | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to encode.

    Attributes:
        encoder: The encoder.
        reader: Opens and preprocesses pictures.
        manifest: The manifest of a collection with these embeddings, without sources and a plan.
        model: The model.
    """

    encoder: Encoder
    reader: Reader
    manifest: Manifest
    model: "CLIP"

    def optimized(self) -> "Loaded":
        """Returns the fastest form of the model. This takes a second, which many inputs repay.

        Raises:
            OptimizationError: The error of the features in bfloat16 exceeds its limit.
        """
        if self.encoder.device.type != "cpu":
            return self
        fast = _fastest(self.model, self.manifest.precision)
        return replace(self, encoder=Encoder(fast, normalize=self.manifest.normalized))


def load_encoder(options: Options, *, for_gpu: bool = False) -> Loaded:
    """Loads the model of a run.

    Args:
        options: The options.
        for_gpu: Whether the manifest describes the model on the GPUs of other machines.

    Raises:
        HfclipError: As `hfclip.load`.
    """
    device = choose_device(options.device)
    source = find(
        options.model,
        base=options.base,
        namespace=options.namespace,
        subfolder=options.subfolder,
        variant=options.variant,
    )
    dtype = _dtype(options.precision, device)
    model, preprocess = load_source(source, device, dtype, options.preprocess)
    repository, commit = _place(source.weight_files[0])
    manifest = Manifest(
        name=_absolute(options.model),
        repository=repository,
        commit=commit,
        base=None if options.base is None else _absolute(options.base),
        subfolder=options.subfolder,
        variant=options.variant,
        sha256=_digest(source),
        config_digest=_config_digest(model),
        preprocess=options.preprocess,
        precision=_ON_GPU[options.precision]
        if for_gpu
        else _computed_in(options.precision, model, device),
        normalized=not options.raw,
        dimension=model.config.embed_dim,
        dtype=options.dtype,
        kind=options.kind,
        background=options.background,
        auto_orient=options.auto_orient,
        max_pixels=options.max_pixels,
        sources=(),
        version=__version__,
    )
    return _loaded(model, preprocess, manifest)


def load_model_of(manifest: Manifest, device: str | None = None) -> Loaded:
    """Loads the model that made the embeddings of a collection.

    The model is not optimized, because a few queries do not repay the time for it.

    Args:
        manifest: The manifest of the collection.
        device: The device. None selects the GPU if there is one.

    Raises:
        DataError: The weights or the configuration have changed since.
        HfclipError: As `hfclip.load`.
    """
    target = choose_device(device)
    name = manifest.repository or manifest.name
    source = find(
        name,
        revision=manifest.commit if manifest.repository else None,
        base=manifest.base,
        subfolder=manifest.subfolder,
        variant=manifest.variant,
    )
    if manifest.sha256 is not None and not _has_digest(source, manifest.sha256):
        raise DataError(
            f"The weights of {name} are not those that made the embeddings (sha256 "
            f"{manifest.sha256}). Restore them, or embed the collection again."
        )
    model, preprocess = load_source(source, target, preprocess=manifest.preprocess)
    if _config_digest(model) != manifest.config_digest:
        raise DataError(
            f"The configuration of {name} has changed since it made the embeddings. Restore it, or "
            "embed the collection again."
        )
    return _loaded(model, preprocess, manifest)


def is_model(name: str, manifest: Manifest) -> bool:
    """Returns whether a name or a path stands for the model of a collection.

    Names on the Hub are compared as names. A file or folder may also have the same weights.

    Raises:
        HfclipError: A file or folder of this name is no model.
    """
    if _absolute(name) in (manifest.name, manifest.repository):
        return True
    if name in BUNDLED or name in RELEASES or local_path(name) is None:
        return False
    return manifest.sha256 is not None and _has_digest(find(name), manifest.sha256)


def _loaded(model: "CLIP", preprocess: Any, manifest: Manifest) -> Loaded:
    reader = Reader(
        preprocess,
        manifest.auto_orient,
        manifest.max_pixels,
        manifest.background,
        Recipe.of(model.config).resized,
    )
    return Loaded(Encoder(model, normalize=manifest.normalized), reader, manifest, model)


def _dtype(precision: str, device: "torch.device") -> "torch.dtype | None":
    import torch  # noqa: PLC0415

    if device.type == "cpu":  # hfclip.optimize converts
        return None
    return {"fp32": torch.float32, "bf16": torch.bfloat16}.get(precision)


def _computed_in(precision: str, model: "CLIP", device: "torch.device") -> str:
    """Returns the precision in which a model computes. Warns if it is not the chosen one."""
    if device.type != "cpu":
        return str(model.dtype).removeprefix("torch.")
    if precision != "bf16":
        return "float32"
    if has_instructions("bfloat16"):
        return "bfloat16"
    warnings.warn(
        "This processor has no instructions for bfloat16, which would be slower. The model "
        "computes in float32.",
        stacklevel=3,
    )
    return "float32"


def _fastest(model: "CLIP", precision: str) -> Towers:
    """Returns the fastest form of a model on a CPU."""
    try:
        return optimize(model, "bfloat16" if precision == "bfloat16" else "float32")
    except OptimizationError:  # rare weights lose too much precision if optimized
        if precision == "bfloat16":
            raise
        return model


def _absolute(name: str) -> str:
    """Returns the name of a model so that it is found from another folder, too."""
    path = None if name in BUNDLED or name in RELEASES else local_path(name)
    return name if path is None else str(path.absolute())


def _place(weights: Path) -> tuple[str | None, str | None]:
    """Returns the repository and commit of a file in the Hub's cache, or None twice.

    The cache names a file .../models--ORG--NAME/snapshots/COMMIT/FILE.
    """
    parts = weights.parts
    for place, part in enumerate(parts[:-2]):
        if part.startswith("models--") and parts[place + 1] == "snapshots":
            return part.removeprefix("models--").replace("--", "/", 1), parts[place + 2]
    return None, None


def _digest(source: "Source") -> str:
    """Returns the sha256 of the weights; of the shards' hashes where there are several."""
    digests = [compute(path, "sha256") for path in source.weight_files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _has_digest(source: "Source", sha256: str) -> bool:
    """Returns whether weights have a sha256. A file that was verified is not read again."""
    if len(source.weight_files) == 1:
        return matches(source.weight_files[0], Digest("sha256", sha256))
    return _digest(source) == sha256


def _config_digest(model: "CLIP") -> str:
    """Returns the sha256 of a model's configuration."""
    return hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode()).hexdigest()
