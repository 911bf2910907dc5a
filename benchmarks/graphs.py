"""Writes the graphs of image towers and the features of clip that the encoding benchmarks read.

    python -m benchmarks.graphs onnx ViT-B/32 /tmp/ViT-B-32.safetensors /tmp/folder

A graph is written once, by the tools of the engine that runs it. All have the same weights.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import weights
from benchmarks.weights import written

if TYPE_CHECKING:
    from torch import Tensor

IMAGES = 16
FEATURES, GRAPH, QUANTIZED, OPENVINO = "features.pt", "image.onnx", "image-int8.onnx", "image.xml"
_OF_SAFETENSORS, _OF_ARCHIVE = "safetensors", "archive"


def provide(kind: str, model: str, cache: Path) -> Path:
    """Writes a folder of one kind for a model unless it exists, and returns its path.

    Raises:
        subprocess.CalledProcessError: Writing failed; the reason was printed.
    """
    source = weights.provide(_SOURCES[kind], model, cache)
    return written(locate(kind, model, cache), __name__, kind, model, str(source))


def locate(kind: str, model: str, cache: Path) -> Path:
    """Returns the path of such a folder, which may not exist yet."""
    return weights.locate(_OF_SAFETENSORS, model, cache).with_suffix(f".{kind}")


def images(model: str, count: int = IMAGES) -> "Tensor":
    """Returns the same random pictures at each call, float32 of shape (count, 3, S, S)."""
    import torch

    from hfclip.releases import RELEASES

    side = RELEASES[model].config.image_resolution
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def write_features(model: str, source: Path, folder: Path) -> None:
    """Writes the features that clip computes for the pictures in float32."""
    import clip
    import torch

    folder.mkdir()
    with torch.no_grad():
        features = clip.load(str(source), "cpu")[0].encode_image(images(model))
    torch.save(features, folder / FEATURES)


def write_onnx(model: str, source: Path, folder: Path) -> None:
    """Writes the image tower as torch exports it, for any batch size; a ViT also in int8."""
    import torch
    from onnxruntime.quantization import quantize_dynamic

    folder.mkdir()
    tower = _tower(source)
    torch.onnx.export(
        tower,
        (images(model, 2),),
        folder / GRAPH,
        input_names=["image"],
        dynamic_shapes=({0: torch.export.Dim("images", min=1, max=1024)},),
        external_data=True,
    )
    # Dynamic int8 convolutions are slower than float32.
    if model.startswith("ViT"):
        quantize_dynamic(folder / GRAPH, folder / QUANTIZED)


def write_openvino(model: str, source: Path, folder: Path) -> None:
    """Writes the image tower in float32 as OpenVINO converts it from torch."""
    import openvino

    folder.mkdir()
    graph = openvino.convert_model(_tower(source), example_input=images(model, 2))
    openvino.save_model(graph, folder / OPENVINO, compress_to_fp16=False)


def _tower(source: Path) -> Any:
    from hfclip import load

    return load(source, "cpu")[0].visual.requires_grad_(requires_grad=False)


_SOURCES = {"features": _OF_ARCHIVE, "onnx": _OF_SAFETENSORS, "openvino": _OF_SAFETENSORS}
_WRITERS: dict[str, Callable[[str, Path, Path], None]] = {
    "features": write_features,
    "onnx": write_onnx,
    "openvino": write_openvino,
}
KINDS = frozenset(_WRITERS)


if __name__ == "__main__":
    _kind, _model, _source, _folder = sys.argv[1:]
    _WRITERS[_kind](_model, Path(_source), Path(_folder))
