"""CLIP from the Hugging Face Hub, with OpenAI's interface and verified weights.

>>> import hfclip, torch
>>> device = "cuda" if torch.cuda.is_available() else "cpu"
>>> model, preprocess = hfclip.load("ViT-B/32", device=device)
>>> text = hfclip.tokenize(["a photo of a cat", "a photo of a dog"]).to(device)

Public names are imported on first use, which keeps `import hfclip` fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hfclip.version import __version__ as __version__

if TYPE_CHECKING:
    from hfclip import light as light
    from hfclip.config import ClipConfig
    from hfclip.embedding.arrays import embed_images, embed_texts, iter_images
    from hfclip.embedding.embeddings import Embeddings
    from hfclip.errors import (
        ArgumentError,
        ArgumentTypeError,
        CacheError,
        CheckpointError,
        ClipImportedError,
        ConfigError,
        DataError,
        DeviceError,
        ExportError,
        HfclipError,
        HubError,
        ImageError,
        IntegrityError,
        LabelError,
        ModelNotFoundError,
        NeedsTorchError,
        NetworkError,
        OptimizationError,
        PublishError,
        RepositoryError,
        ShapeError,
        TextTooLongError,
        TrainingError,
        UnknownTokenError,
        UnsafeCheckpointError,
        WeightsMismatchError,
    )
    from hfclip.fast.optimize import optimize
    from hfclip.images.preprocess import image_transform
    from hfclip.loading import available_models, load
    from hfclip.model import CLIP
    from hfclip.probing.probe import LinearProbe
    from hfclip.publishing.export import export
    from hfclip.publishing.finetune import publish
    from hfclip.publishing.space import publish_space
    from hfclip.search.searcher import Searcher
    from hfclip.sources.download import Download, download
    from hfclip.sources.inspect import Inspection, inspect
    from hfclip.sources.verify import Verification, verify
    from hfclip.text.tokenizer import decode, tokenize
    from hfclip.training.run import finetune
    from hfclip.zeroshot.classifier import ZeroShotClassifier


_HOMES = {
    "CLIP": "model",
    "ClipConfig": "config",
    "Download": "sources.download",
    "Embeddings": "embedding.embeddings",
    "Inspection": "sources.inspect",
    "LinearProbe": "probing.probe",
    "Searcher": "search.searcher",
    "Verification": "sources.verify",
    "ZeroShotClassifier": "zeroshot.classifier",
    "available_models": "loading",
    "decode": "text.tokenizer",
    "download": "sources.download",
    "embed_images": "embedding.arrays",
    "embed_texts": "embedding.arrays",
    "export": "publishing.export",
    "finetune": "training.run",
    "image_transform": "images.preprocess",
    "inspect": "sources.inspect",
    "iter_images": "embedding.arrays",
    "load": "loading",
    "optimize": "fast.optimize",
    "publish": "publishing.finetune",
    "publish_space": "publishing.space",
    "tokenize": "text.tokenizer",
    "verify": "sources.verify",
    "ArgumentError": "errors",
    "ArgumentTypeError": "errors",
    "CacheError": "errors",
    "DataError": "errors",
    "DeviceError": "errors",
    "EngineError": "errors",
    "ExportError": "errors",
    "PublishError": "errors",
    "UnknownTokenError": "errors",
    "HubError": "errors",
    "IntegrityError": "errors",
    "NetworkError": "errors",
    "RepositoryError": "errors",
    "CheckpointError": "errors",
    "ClipImportedError": "errors",
    "ConfigError": "errors",
    "HfclipError": "errors",
    "ImageError": "errors",
    "LabelError": "errors",
    "ModelNotFoundError": "errors",
    "NeedsTorchError": "errors",
    "OptimizationError": "errors",
    "ShapeError": "errors",
    "TextTooLongError": "errors",
    "TrainingError": "errors",
    "UnsafeCheckpointError": "errors",
    "WeightsMismatchError": "errors",
}

__all__ = [
    "CLIP",
    "ArgumentError",
    "ArgumentTypeError",
    "CacheError",
    "CheckpointError",
    "ClipConfig",
    "ClipImportedError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "Download",
    "Embeddings",
    "EngineError",
    "ExportError",
    "HfclipError",
    "HubError",
    "ImageError",
    "Inspection",
    "IntegrityError",
    "LabelError",
    "LinearProbe",
    "ModelNotFoundError",
    "NeedsTorchError",
    "NetworkError",
    "OptimizationError",
    "PublishError",
    "RepositoryError",
    "Searcher",
    "ShapeError",
    "TextTooLongError",
    "TrainingError",
    "UnknownTokenError",
    "UnsafeCheckpointError",
    "Verification",
    "WeightsMismatchError",
    "ZeroShotClassifier",
    "available_models",
    "decode",
    "download",
    "embed_images",
    "embed_texts",
    "export",
    "finetune",
    "image_transform",
    "inspect",
    "iter_images",
    "load",
    "optimize",
    "publish",
    "publish_space",
    "tokenize",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "light":
        return import_module("hfclip.light")
    if name not in _HOMES:
        raise AttributeError(f"module 'hfclip' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"hfclip.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        from hfclip.errors import without_torch  # noqa: PLC0415

        explained = without_torch(error, f"hfclip.{name}")
        if explained is None:
            raise
        raise explained from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
