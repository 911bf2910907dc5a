"""Collects the nodes and tensors of an ONNX graph whose weights stay in a safetensors file."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

# ONNX's dtypes for those of weights in a safetensors file.
_DTYPES = {
    "F64": onnx.TensorProto.DOUBLE,
    "F32": onnx.TensorProto.FLOAT,
    "F16": onnx.TensorProto.FLOAT16,
    "BF16": onnx.TensorProto.BFLOAT16,
}
# The first versions with the operators GELU and LayerNormalization.
_OPSET, _IR_VERSION = 20, 10


class Place(NamedTuple):
    """A tensor in a safetensors file.

    Attributes:
        dtype: The name of its dtype in the file.
        shape: The length of each dimension.
        offset: Its first byte in the file.
        size: Its number of bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class Nodes:
    """The nodes of a graph in order, the constants, and the weights that the nodes use.

    Args:
        file: The name of the safetensors file, relative to the folder of the graph.
        places: The tensors of this file by name.
    """

    def __init__(self, file: str, places: dict[str, Place]) -> None:
        self._file = file
        self._places = places
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, onnx.TensorProto] = {}
        self._floats: dict[str, str] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output and returns the name of this output."""
        return self.split(operator, *inputs, outputs=1, **attributes)[0]

    def split(self, operator: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Adds a node with several outputs and returns their names."""
        name = f"{operator}_{len(self._nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{place}" for place in range(outputs)]
        self._nodes.append(helper.make_node(operator, inputs, names, name, **attributes))
        return names

    def integers(self, *values: int) -> str:
        """Returns the name of a constant (N,) int64."""
        return self._constant(np.array(values, dtype=np.int64))

    def number(self, value: float) -> str:
        """Returns the name of a constant () float32."""
        return self._constant(np.array(value, dtype=np.float32))

    def index(self, value: int) -> str:
        """Returns the name of a constant () int64."""
        return self._constant(np.array(value, dtype=np.int64))

    def shape_of(self, weight: str) -> tuple[int, ...]:
        """Returns the shape of a weight."""
        return self._places[weight].shape

    def has(self, weight: str) -> bool:
        """Returns whether the file has a weight of this name."""
        return weight in self._places

    def weight(self, name: str) -> str:
        """Returns the name of a weight in float32. Adds a cast if the file has another dtype."""
        if name not in self._floats:
            place = self._places[name]
            self._tensors[name] = self._external(name, place)
            self._floats[name] = name
            if place.dtype != "F32":
                self._floats[name] = self.add("Cast", name, to=onnx.TensorProto.FLOAT)
        return self._floats[name]

    def model(
        self, given: onnx.ValueInfoProto, features: str, shape: Sequence[str | int]
    ) -> onnx.ModelProto:
        """Returns a model with one input, and one output named `features`.

        Args:
            given: The input, with its dtype and shape.
            features: The name of the output of a node: float32.
            shape: The shape of this output.
        """
        self._nodes.append(helper.make_node("Identity", [features], ["features"], "features"))
        output = helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, shape)
        graph = helper.make_graph(
            self._nodes, "hfclip", [given], [output], list(self._tensors.values())
        )
        return helper.make_model(
            graph,
            producer_name="hfclip",
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET)],
        )

    def _constant(self, values: "np.ndarray[Any, Any]") -> str:
        name = f"{values.dtype}_{'x'.join(map(str, np.atleast_1d(values)))}_{values.ndim}"
        self._tensors[name] = numpy_helper.from_array(values, name)
        return name

    def _external(self, name: str, place: Place) -> onnx.TensorProto:
        tensor = onnx.TensorProto(
            name=name,
            data_type=_DTYPES[place.dtype],
            dims=place.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        entries = {"location": self._file, "offset": place.offset, "length": place.size}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor
