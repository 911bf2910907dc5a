"""The options of `hfclip embed`, and the model that they describe."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hfclip.devices import choose_device
from hfclip.embedding.decoding import MAX_PIXELS, Reader
from hfclip.embedding.encode import Encoder, Towers
from hfclip.embedding.manifest import Manifest
from hfclip.errors import ArgumentError, OptimizationError
from hfclip.fast.optimize import optimize
from hfclip.fast.processor import has_instructions
from hfclip.hub.integrity import compute
from hfclip.loading import load
from hfclip.sources.find import find
from hfclip.version import __version__

if TYPE_CHECKING:
    import torch

    from hfclip.layouts.files import Source
    from hfclip.model import CLIP


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
        precision: "fp32" or "bf16" on a CPU. A GPU computes in float16, or in bfloat16.
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
    precision: Literal["fp32", "bf16"] = "fp32"
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
        manifest: The manifest of a collection with these embeddings, for a plan's digest of "".
    """

    encoder: Encoder
    reader: Reader
    manifest: Manifest


def load_encoder(options: Options) -> Loaded:
    """Loads the model of a run. It is optimized on a CPU.

    Raises:
        HfclipError: As `hfclip.load`; or the precision is not available on this machine.
    """
    device = choose_device(options.device)
    source = find(
        options.model,
        base=options.base,
        namespace=options.namespace,
        subfolder=options.subfolder,
        variant=options.variant,
    )
    model, preprocess = load(
        options.model,
        device,
        dtype=_dtype(options, device),
        preprocess=options.preprocess,
        base=options.base,
        namespace=options.namespace,
        subfolder=options.subfolder,
        variant=options.variant,
    )
    towers, precision = _fastest(model, options, device)
    reader = Reader(preprocess, options.auto_orient, options.max_pixels, options.background)
    repository, commit = _place(source.weight_files[0])
    manifest = Manifest(
        name=options.model,
        repository=repository,
        commit=commit,
        sha256=_digest(source),
        config_digest=_config_digest(model, options),
        preprocess=options.preprocess,
        precision=precision,
        normalized=not options.raw,
        dimension=model.config.embed_dim,
        dtype=options.dtype,
        version=__version__,
        plan_digest="",
        kind=options.kind,
    )
    return Loaded(Encoder(towers, normalize=not options.raw), reader, manifest)


def _dtype(options: Options, device: "torch.device") -> "torch.dtype | None":
    import torch  # noqa: PLC0415

    if device.type == "cpu":
        return None
    return torch.bfloat16 if options.precision == "bf16" else None


def _fastest(model: "CLIP", options: Options, device: "torch.device") -> tuple[Towers, str]:
    """Returns the fastest form of a model, and the precision in which it computes."""
    if device.type != "cpu":
        return model, str(model.dtype).removeprefix("torch.")
    if options.precision == "bf16" and not has_instructions("bfloat16"):
        raise ArgumentError(
            "This processor has no instructions for bfloat16, so it would be slower. Use "
            "--precision fp32."
        )
    wanted: Literal["float32", "bfloat16"] = (
        "bfloat16" if options.precision == "bf16" else "float32"
    )
    try:
        return optimize(model, wanted), wanted
    except OptimizationError:  # rare weights lose too much precision if optimized
        if wanted == "bfloat16":
            raise
        return model, wanted


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


def _config_digest(model: "CLIP", options: Options) -> str:
    """Returns the sha256 of all that changes embeddings and has no field of its own."""
    facts = {
        "config": model.config.to_dict(),
        "auto_orient": options.auto_orient,
        "background": options.background,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
