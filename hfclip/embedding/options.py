"""The options of `hfclip embed`, and the model that they describe."""

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from hfclip.devices import choose_device
from hfclip.embedding.decoding import MAX_PIXELS, Reader
from hfclip.embedding.encode import Encoder, Towers
from hfclip.embedding.identity import (
    absolute_name,
    check_config,
    config_digest,
    find_model_of,
    place_of,
    weights_digest,
)
from hfclip.embedding.manifest import Manifest
from hfclip.errors import OptimizationError
from hfclip.fast.optimize import optimize
from hfclip.fast.processor import has_instructions
from hfclip.images.exact import Recipe
from hfclip.loading import load_source
from hfclip.sources.find import find
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


def load_encoder(
    options: Options, source: "Source | None" = None, *, for_gpu: bool = False
) -> Loaded:
    """Loads the model of a run.

    Args:
        options: The options.
        source: The files of the model, if `hfclip.sources.find` has found them.
        for_gpu: Whether the manifest describes the model on the GPUs of other machines.

    Raises:
        HfclipError: As `hfclip.load`.
    """
    device = choose_device(options.device)
    source = source or find(
        options.model,
        base=options.base,
        namespace=options.namespace,
        subfolder=options.subfolder,
        variant=options.variant,
    )
    dtype = _dtype(options.precision, device)
    model, preprocess = load_source(source, device, dtype, options.preprocess)
    repository, commit = place_of(source.weight_files[0])
    manifest = Manifest(
        name=absolute_name(options.model),
        repository=repository,
        commit=commit,
        base=None if options.base is None else absolute_name(options.base),
        subfolder=options.subfolder,
        variant=options.variant,
        sha256=weights_digest(source),
        config_digest=config_digest(model.config),
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


def load_model_of(
    manifest: Manifest, device: str | None = None, source: "Source | None" = None
) -> Loaded:
    """Loads the model that made the embeddings of a collection.

    The model is not optimized, because a few queries do not repay the time for it.

    Args:
        manifest: The manifest of the collection.
        device: The device. None selects the GPU if there is one.
        source: The files of the model, if `find_model_of` has found them.

    Raises:
        DataError: The weights or the configuration have changed since.
        HfclipError: As `hfclip.load`.
    """
    target = choose_device(device)
    source = source or find_model_of(manifest)
    model, preprocess = load_source(source, target, preprocess=manifest.preprocess)
    check_config(model.config, manifest)
    return _loaded(model, preprocess, manifest)


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
