"""Writes two ONNX graphs beside model.safetensors that use its weights without a copy.

An ONNX tensor may refer to an offset in another file, and the header of a safetensors file has the
offset of each tensor. Two small files therefore let onnxruntime run a folder in hfclip's layout.
The other files of the folder do not change.
"""

import json
from pathlib import Path

from hfclip.config import ClipConfig
from hfclip.errors import ExportError
from hfclip.layouts.files import WEIGHTS_FILE

IMAGE_GRAPH, TEXT_GRAPH = "image.onnx", "text.onnx"


def write_graphs(folder: Path, config: ClipConfig) -> None:
    """Writes image.onnx and text.onnx into a folder in hfclip's layout.

    The input of image.onnx is `image` (B, 3, S, S) float32. The input of text.onnx is `text` (B, L)
    int64, with L up to the context length. The output of both is `features` (B, D) float32, not
    normalised.

    Args:
        folder: A folder whose model.safetensors has the weights of a model.
        config: The configuration of this model.

    Raises:
        ExportError: The package that writes ONNX is not installed.
    """
    try:
        import onnx  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ExportError(
            f"{error.name} is not installed, and ONNX files need it. Run: "
            "pip install 'hfclip[onnx]'"
        ) from error
    from hfclip.onnx.nodes import Nodes, Place  # noqa: PLC0415  # imports onnx
    from hfclip.onnx.towers import image_model, text_model  # noqa: PLC0415

    with (folder / WEIGHTS_FILE).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    places = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        places[name] = Place(entry["dtype"], (*entry["shape"],), 8 + length + begin, end - begin)
    for graph, build in ((IMAGE_GRAPH, image_model), (TEXT_GRAPH, text_model)):
        onnx.save(build(Nodes(WEIGHTS_FILE, places), config), folder / graph)
