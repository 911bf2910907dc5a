"""Writes two ONNX graphs beside model.safetensors that use its weights without a copy.

An ONNX tensor may refer to an offset in another file, and the header of a safetensors file has the
offset of each tensor. Two small files therefore let onnxruntime run a folder in hfclip's layout.
The other files of the folder do not change.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hfclip.errors import ExportError
from hfclip.layouts.files import WEIGHTS_FILE
from hfclip.model import CLIP

if TYPE_CHECKING:
    import onnx_ir

IMAGE_GRAPH, TEXT_GRAPH = "image.onnx", "text.onnx"
_TOWER = "model."


class _ImageTower(nn.Module):
    """The image tower of a model, under its name in the model."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.visual = model.visual

    def forward(self, image: Tensor) -> Tensor:
        """Encodes images (B, 3, S, S) in float32 to features (B, D), not normalised."""
        features: Tensor = self.visual(image)
        return features


class _TextTower(nn.Module):
    """The modules and parameters that `CLIP.encode_text` uses, under their names in the model."""

    dtype = torch.float32

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.transformer = model.transformer
        self.token_embedding = model.token_embedding
        self.positional_embedding = model.positional_embedding
        self.ln_final = model.ln_final
        self.text_projection = model.text_projection

    def forward(self, text: Tensor) -> Tensor:
        """Encodes token ids (B, L) to features (B, D), not normalised."""
        return CLIP.encode_text(cast(CLIP, self), text)


class _InFloat32(nn.Module):
    """One tower that keeps the dtypes of its weights and computes in float32.

    The export takes time for each weight of its module, even for one that the tower does not use.
    The module of a tower therefore has no weights of the other tower.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.model = tower

    def forward(self, x: Tensor) -> Tensor:
        """Encodes images (B, 3, S, S) or token ids (B, L) to features (B, D), not normalised."""
        state = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in self.model.state_dict(keep_vars=True).items()
        }
        features: Tensor = functional_call(self.model, state, (x,))
        return features


def write_graphs(folder: Path, model: CLIP) -> None:
    """Writes image.onnx and text.onnx into a folder in hfclip's layout.

    The input of image.onnx is `image` (B, 3, S, S) float32. The input of text.onnx is `text` (B, L)
    int64, with L up to the context length. The output of both is `features` (B, D) float32, not
    normalised.

    Args:
        folder: A folder whose model.safetensors has the weights of `model`.
        model: A model in eval mode, with the dtypes of the file.

    Raises:
        ExportError: The packages that write ONNX are not installed.
    """
    _check_installed()
    config = model.config
    image = torch.zeros(2, 3, config.image_resolution, config.image_resolution)
    text = torch.zeros(2, config.context_length, dtype=torch.int64)
    offsets = _offsets(folder / WEIGHTS_FILE)
    for name, tower, title, example in (
        (IMAGE_GRAPH, _ImageTower(model), "image", image),
        (TEXT_GRAPH, _TextTower(model), "text", text),
    ):
        graph = _traced(_InFloat32(tower).eval(), title, example, config.context_length)
        _point_to_file(graph, offsets)
        _forget_machine(graph)
        _save(graph, folder / name)


def _check_installed() -> None:
    try:
        import onnx_ir  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as error:
        raise ExportError(
            f"{error.name} is not installed, and ONNX files need it. Run: "
            "pip install 'hfclip[onnx]'"
        ) from error


def _traced(tower: nn.Module, title: str, example: Tensor, length: int) -> "onnx_ir.Model":
    sizes: dict[int, Any] = {0: torch.export.Dim("batch")}
    if title == "text":
        sizes[1] = torch.export.Dim("length", min=2, max=length)
    with _quiet():
        program = torch.onnx.export(
            tower,
            (example,),
            dynamo=True,
            optimize=False,  # folding would create weights that are not in model.safetensors
            input_names=[title],
            output_names=["features"],
            dynamic_shapes={"x": sizes},
            verbose=False,
        )
    assert program is not None  # noqa: S101  # export returns a program if no file is given
    return program.model


def _offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Returns the offset and the size, in bytes, of each tensor in a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    ranges = {name: entry["data_offsets"] for name, entry in header.items()}
    return {name: (8 + length + begin, end - begin) for name, (begin, end) in ranges.items()}


def _point_to_file(graph: "onnx_ir.Model", offsets: dict[str, tuple[int, int]]) -> None:
    import onnx_ir  # noqa: PLC0415  # an extra

    for name, value in graph.graph.initializers.items():
        place = offsets.get(name.removeprefix(_TOWER))
        held = value.const_value
        if place is not None and held is not None:
            value.const_value = onnx_ir.ExternalTensor(
                WEIGHTS_FILE,
                *place,
                dtype=held.dtype,
                shape=onnx_ir.Shape(held.shape.numpy()),
                name=name,
            )


def _forget_machine(graph: "onnx_ir.Model") -> None:
    """Deletes the exporter's metadata: paths of this machine, and most bytes of the graph."""
    graph.metadata_props.clear()
    graph.graph.metadata_props.clear()
    for node in graph.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.graph.inputs, *graph.graph.initializers.values()):
        value.metadata_props.clear()


def _save(graph: "onnx_ir.Model", path: Path) -> None:
    import onnx_ir  # noqa: PLC0415  # an extra

    onnx_ir.save(graph, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the log messages and warnings of the exporter."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
