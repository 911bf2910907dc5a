"""Tasks that encode images: each engine loads its model and encodes the same pictures.

The features of every engine are compared with clip's.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import graphs, limits, weights

if TYPE_CHECKING:
    from torch import Tensor

    from hfclip.config import ClipConfig
    from hfclip.fast.kernels import Precision

BATCHES = (1, graphs.IMAGES)
# Precision of engines that compute in float32 and are compared with each precision of hfclip.
EVERY = "every precision"
SECONDS = 1.5
# Number of matrix products after each encoding, to measure the share of the limit.
_PRODUCTS = 8

Step = str | tuple[str, float]
Encode = Callable[["Tensor"], Any]


def clip(cache: str, model: str) -> Iterator[Step]:
    """Encodes with OpenAI's code, which clip-anytorch packages."""
    import clip as package

    path = weights.locate("archive", model, Path(cache))
    yield from _laps(package.load(str(path), "cpu")[0].encode_image, EVERY, cache, model)


def open_clip(cache: str, model: str) -> Iterator[Step]:
    """Encodes with open_clip and its default attention."""
    import open_clip as package

    name = model.replace("/", "-").replace("@336px", "-336")
    path = str(weights.locate("safetensors", model, Path(cache)))
    tower = package.create_model(name, pretrained=path, device="cpu", force_quick_gelu=True)
    yield from _laps(tower.eval().encode_image, EVERY, cache, model)


def transformers(cache: str, model: str) -> Iterator[Step]:
    """Encodes with transformers and torch's fused attention."""
    tower = transformers_model(cache, model)

    def encode(images: "Tensor") -> Any:
        return tower.get_image_features(pixel_values=images).pooler_output

    yield from _laps(encode, EVERY, cache, model)


def transformers_model(cache: str, model: str) -> Any:
    """Returns a CLIPModel with the weights of the other engines."""
    from safetensors.torch import load_file
    from transformers import CLIPModel

    from hfclip.layouts.transformers import to_transformers

    folder = weights.locate("transformers", model, Path(cache))
    tower: Any = CLIPModel.from_pretrained(folder, attn_implementation="sdpa")
    own = load_file(weights.locate("safetensors", model, Path(cache)))
    tower.load_state_dict(to_transformers(own))
    return tower.eval()


def hfclip(cache: str, model: str) -> Iterator[Step]:
    """Encodes with the model that hfclip loads."""
    yield from _laps(hfclip_model(cache, model).encode_image, "float32", cache, model)


def hfclip_model(cache: str, model: str) -> Any:
    """Returns the model of hfclip in float32."""
    from hfclip import load

    return load(weights.locate("safetensors", model, Path(cache)), "cpu")[0]


def optimized_float32(cache: str, model: str) -> Iterator[Step]:
    """Encodes with `hfclip.optimize` in float32."""
    yield from _optimized(cache, model, "float32")


def optimized_bfloat16(cache: str, model: str) -> Iterator[Step]:
    """Encodes with `hfclip.optimize` in bfloat16."""
    yield from _optimized(cache, model, "bfloat16")


def optimized_int8(cache: str, model: str) -> Iterator[Step]:
    """Encodes with `hfclip.optimize` in int8."""
    yield from _optimized(cache, model, "int8")


def _optimized(cache: str, model: str, precision: "Precision") -> Iterator[Step]:
    """Measures an optimized model, and its share of the machine's limit if it is a ViT."""
    from hfclip import optimize
    from hfclip.releases import RELEASES

    fast = optimize(hfclip_model(cache, model), precision)
    yield from _laps(fast.encode_image, precision, cache, model)
    config = RELEASES[model].config
    if not config.is_resnet:
        limit = limits.packed_product(fast.computes_in)
        images = graphs.images(model)
        work = len(images) * operations(config)
        yield f"{precision}, share", _share(lambda: fast.encode_image(images), work, *limit)


def operations(config: "ClipConfig") -> float:
    """Counts the multiplications and additions of an optimized ViT for one image.

    The model itself does more. With width W, U hidden units, length L and H heads, each block but
    the last takes 8 W W + 4 W U for each token and 4 L W for its attention. The last block
    computes one token: 8 W W + 4 W U, and 4 H L W for its attention.
    """
    assert config.vision_patch_size is not None  # noqa: S101  # a ViT
    assert isinstance(config.vision_layers, int)  # noqa: S101
    width, length, blocks = config.vision_width, config.image_positions, config.vision_layers
    patches = 2 * (length - 1) * 3 * config.vision_patch_size**2 * width
    token = 8 * width**2 + 4 * width * config.vision_mlp_units
    block = length * (token + 4 * length * width)
    last = token + 4 * config.vision_heads * length * width
    return float(patches + (blocks - 1) * block + last + 2 * width * config.embed_dim)


def onnxruntime_float32(cache: str, model: str) -> Iterator[Step]:
    """Encodes with onnxruntime and the graph that torch exports."""
    yield from _laps(_session(graphs.GRAPH, cache, model), "float32", cache, model)


def onnxruntime_int8(cache: str, model: str) -> Iterator[Step]:
    """Encodes with onnxruntime and this graph after its own dynamic quantization."""
    yield from _laps(_session(graphs.QUANTIZED, cache, model), "int8", cache, model)


def _session(file: str, cache: str, model: str) -> Encode:
    import onnxruntime
    import torch

    path = graphs.locate("onnx", model, Path(cache)) / file
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0])


def openvino_float32(cache: str, model: str) -> Iterator[Step]:
    """Encodes with OpenVINO in float32."""
    yield from _laps(_compiled("f32", cache, model), "float32", cache, model)


def openvino_bfloat16(cache: str, model: str) -> Iterator[Step]:
    """Encodes with OpenVINO in bfloat16."""
    yield from _laps(_compiled("bf16", cache, model), "bfloat16", cache, model)


def _compiled(precision: str, cache: str, model: str) -> Encode:
    import openvino
    import torch

    path = graphs.locate("openvino", model, Path(cache)) / graphs.OPENVINO
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(path, "CPU", hints)
    return lambda images: torch.from_numpy(compiled([images.numpy()])[0])


def _laps(encode: Encode, precision: str, cache: str, model: str) -> Iterator[Step]:
    """Yields images a second for each batch size, then the difference from clip."""
    import torch

    images = graphs.images(model)
    yield "load"
    with torch.inference_mode():
        for batch in BATCHES:
            seconds, features = timed(encode, images[:batch])
            yield lap(precision, batch), batch / seconds
        path = graphs.locate("features", model, Path(cache)) / graphs.FEATURES
        if path.exists():
            yield from differences(features, torch.load(path))


def lap(precision: str, batch: int) -> str:
    """Returns the name of a lap."""
    return f"{precision}, batch {batch}"


def timed(encode: Encode, batch: "Tensor") -> tuple[float, "Tensor"]:
    """Runs an encoding for `SECONDS` and returns the median time and the features.

    A first run with one input is not counted. It prepares the engine.
    """
    encode(batch[:1])
    taken: list[float] = []
    while sum(taken) < SECONDS:
        start = time.perf_counter()
        features: Tensor = encode(batch)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), features


def _share(
    encode: Callable[[], object], work: float, product: Callable[[], object], operations: float
) -> float:
    """Returns the speed of an encoding divided by the speed of a matrix product.

    `work` and `operations` are the operations of each. Both take turns, so that a slow phase of the
    machine affects both, and their medians count.
    """
    encoding: list[float] = []
    multiplying: list[float] = []
    encode()
    product()
    while sum(encoding) < SECONDS:
        encoding.append(limits.elapsed(encode))
        multiplying += [limits.elapsed(product) for _ in range(_PRODUCTS)]
    return work / statistics.median(encoding) * statistics.median(multiplying) / operations


def differences(features: "Tensor", expected: "Tensor") -> Iterator[tuple[str, float]]:
    """Yields the largest relative norm of the difference and the smallest cosine of all rows."""
    import torch

    features, expected = features.double(), expected.double()
    relative = (features - expected).norm(dim=1) / expected.norm(dim=1)
    yield "difference", relative.max().item()
    yield "cosine", torch.cosine_similarity(features, expected).min().item()
