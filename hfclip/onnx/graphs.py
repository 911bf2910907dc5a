"""Two ONNX graphs beside a model's safetensors, whose weights they point to instead of copying.

ONNX lets a tensor lie in another file at an offset, and safetensors says where each lies. So a
folder in hfclip's layout becomes one that onnxruntime runs by two small files, and remains the
folder that it was, to the byte.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import stateless

from hfclip.errors import ExportError
from hfclip.layouts.files import WEIGHTS_FILE
from hfclip.model import CLIP

if TYPE_CHECKING:
    import onnx_ir

IMAGE_GRAPH, TEXT_GRAPH = "image.onnx", "text.onnx"
_TOWER = "model."


class _InFloat32(nn.Module):
    """One tower, which keeps its weights in the types they have and computes in float32."""

    def __init__(self, model: CLIP, method: str) -> None:
        super().__init__()
        self.model = model
        self._method = method

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) or ids (B, L) -> features (B, D), not normalised."""
        state = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in self.model.state_dict(keep_vars=True).items()
        }
        # functional_call reaches `forward` alone; this is what it is made of.
        with stateless._reparametrize_module(self.model, state):  # noqa: SLF001
            features: Tensor = getattr(self.model, self._method)(x)
        return features


def write_graphs(folder: Path, model: CLIP) -> None:
    """Writes image.onnx and text.onnx into a folder that holds the model in hfclip's layout.

    image.onnx takes `image` (B, 3, S, S) float32, text.onnx takes `text` (B, L) int64, L up to
    the context length; both give `features` (B, D) float32, not normalised.

    Args:
        folder: Holds model.safetensors with the weights of `model`.
        model: In eval mode, its weights in the types that the file has.

    Raises:
        ExportError: The packages that write ONNX are not installed.
    """
    _check_installed()
    config = model.config
    image = torch.zeros(2, 3, config.image_resolution, config.image_resolution)
    text = torch.zeros(2, config.context_length, dtype=torch.int64)
    offsets = _offsets(folder / WEIGHTS_FILE)
    for name, method, title, example in (
        (IMAGE_GRAPH, "encode_image", "image", image),
        (TEXT_GRAPH, "encode_text", "text", text),
    ):
        graph = _traced(_InFloat32(model, method).eval(), title, example, config.context_length)
        _point_to_file(graph, offsets)
        _forget_machine(graph)
        _save(graph, folder / name)


def _check_installed() -> None:
    try:
        import onnx_ir  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as error:
        raise ExportError(
            f"Writing ONNX needs {error.name}: pip install 'hfclip[onnx]'."
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
            optimize=False,  # folding would make new weights of the old ones
            input_names=[title],
            output_names=["features"],
            dynamic_shapes={"x": sizes},
            verbose=False,
        )
    assert program is not None  # noqa: S101  # it is, where no file is named
    return program.model


def _offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor of a safetensors file begins, and how many bytes it has."""
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
    """Drops the traces of what code made the graph and where: paths, and most of its size."""
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
    """Keeps what the exporter says of its own workings from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
