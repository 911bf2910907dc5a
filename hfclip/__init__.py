"""CLIP from the Hugging Face Hub, with OpenAI's interface and verified weights.

>>> import hfclip, torch
>>> device = "cuda" if torch.cuda.is_available() else "cpu"
>>> model, preprocess = hfclip.load("ViT-B/32", device=device)
>>> text = hfclip.tokenize(["a photo of a cat", "a photo of a dog"]).to(device)

Public names are imported on first use, which keeps `import hfclip` fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfclip.config import ClipConfig
    from hfclip.downloading import Download, download
    from hfclip.errors import (
        ArgumentError,
        ArgumentTypeError,
        CacheError,
        CheckpointError,
        ClipImportedError,
        ConfigError,
        DeviceError,
        ExportError,
        HfclipError,
        HubError,
        ImageError,
        IntegrityError,
        LabelError,
        ModelNotFoundError,
        NetworkError,
        OptimizationError,
        PublishError,
        RepositoryError,
        ShapeError,
        TextTooLongError,
        UnknownTokenError,
        UnsafeCheckpointError,
        WeightsMismatchError,
    )
    from hfclip.exporting import export
    from hfclip.inference import optimize
    from hfclip.inspection import Inspection, inspect
    from hfclip.loading import available_models, load
    from hfclip.model import CLIP
    from hfclip.preprocess import image_transform
    from hfclip.publishing import publish
    from hfclip.tokenizer import decode, tokenize
    from hfclip.verifying import Verification, verify
    from hfclip.zeroshot import ZeroShotClassifier

__version__ = "0.1.0"

_HOMES = {
    "CLIP": "model",
    "ClipConfig": "config",
    "Download": "downloading",
    "Inspection": "inspection",
    "Verification": "verifying",
    "ZeroShotClassifier": "zeroshot",
    "available_models": "loading",
    "decode": "tokenizer",
    "download": "downloading",
    "export": "exporting",
    "image_transform": "preprocess",
    "inspect": "inspection",
    "load": "loading",
    "optimize": "inference",
    "publish": "publishing",
    "tokenize": "tokenizer",
    "verify": "verifying",
    "ArgumentError": "errors",
    "ArgumentTypeError": "errors",
    "CacheError": "errors",
    "DeviceError": "errors",
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
    "OptimizationError": "errors",
    "ShapeError": "errors",
    "TextTooLongError": "errors",
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
    "DeviceError",
    "Download",
    "ExportError",
    "HfclipError",
    "HubError",
    "ImageError",
    "Inspection",
    "IntegrityError",
    "LabelError",
    "ModelNotFoundError",
    "NetworkError",
    "OptimizationError",
    "PublishError",
    "RepositoryError",
    "ShapeError",
    "TextTooLongError",
    "UnknownTokenError",
    "UnsafeCheckpointError",
    "Verification",
    "WeightsMismatchError",
    "ZeroShotClassifier",
    "available_models",
    "decode",
    "download",
    "export",
    "image_transform",
    "inspect",
    "load",
    "optimize",
    "publish",
    "tokenize",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfclip' has no attribute {name!r}")
    value = getattr(import_module(f"hfclip.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
