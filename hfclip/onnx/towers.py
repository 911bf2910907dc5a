"""The towers of a CLIP as ONNX nodes, which compute in float32 what `hfclip.network` computes.

A function adds nodes and returns the name of their result. Shapes are (batch, length, width), with
B images or texts, L positions, and width W.
"""

import onnx
from onnx import helper

from hfclip.config import ClipConfig
from hfclip.onnx.nodes import Nodes

_EPSILON = 1e-5
_FLOAT, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def image_model(nodes: Nodes, config: ClipConfig) -> onnx.ModelProto:
    """Encodes `image` (B, 3, S, S) float32 to `features` (B, D) float32, not normalised."""
    side = config.image_resolution
    given = helper.make_tensor_value_info("image", _FLOAT, ["batch", 3, side, side])
    features = _resnet(nodes, config) if config.is_resnet else _vit(nodes, config)
    return nodes.model(given, features, ["batch", config.embed_dim])


def text_model(nodes: Nodes, config: ClipConfig) -> onnx.ModelProto:
    """Encodes `text` (B, L) int64 to `features` (B, D) float32, not normalised."""
    given = helper.make_tensor_value_info("text", _INT64, ["batch", "length"])
    length = nodes.add("Shape", "text", start=1, end=2)
    positions = nodes.weight("positional_embedding")
    used = nodes.add("Slice", positions, nodes.integers(0), length, nodes.integers(0))
    x = nodes.add("Gather", nodes.weight("token_embedding.weight"), "text")  # (B, L, W)
    x = nodes.add("Add", x, used)
    mask = _causal_mask(nodes, length)
    heads = config.transformer_heads
    for block in range(config.transformer_layers):
        x = _block(nodes, x, f"transformer.resblocks.{block}", heads, config.activation, mask)
    # argmax finds the end token, which has the highest id.
    ends = nodes.add("ArgMax", "text", axis=1, keepdims=1)
    x = nodes.add("GatherND", x, ends, batch_dims=1)  # (B, W)
    x = nodes.add("MatMul", _layer_norm(nodes, x, "ln_final"), nodes.weight("text_projection"))
    return nodes.model(given, x, ["batch", config.embed_dim])


def _causal_mask(nodes: Nodes, length: str) -> str:
    """Returns (L, L): -inf above the diagonal, else 0."""
    last = nodes.add("Squeeze", length)
    places = nodes.add("Range", nodes.index(0), last, nodes.index(1))
    columns = nodes.add("Unsqueeze", places, nodes.integers(0))
    rows = nodes.add("Unsqueeze", places, nodes.integers(1))
    later = nodes.add("Greater", columns, rows)
    return nodes.add("Where", later, nodes.number(float("-inf")), nodes.number(0))


def _vit(nodes: Nodes, config: ClipConfig) -> str:
    patches = nodes.weight("visual.conv1.weight")
    width, _, side, _ = nodes.shape_of("visual.conv1.weight")
    x = nodes.add("Conv", "image", patches, kernel_shape=[side, side], strides=[side, side])
    x = _positions_last(nodes, x, width, (config.image_resolution // side) ** 2)
    batch = nodes.add("Shape", "image", start=0, end=1)
    shape = nodes.add("Concat", batch, nodes.integers(1, width), axis=0)
    first = nodes.add("Expand", nodes.weight("visual.class_embedding"), shape)
    x = nodes.add("Concat", first, x, axis=1)  # (B, 1 + G*G, W)
    x = nodes.add("Add", x, nodes.weight("visual.positional_embedding"))
    x = _layer_norm(nodes, x, "visual.ln_pre")
    assert isinstance(config.vision_layers, int)  # noqa: S101  # a ResNet has four numbers
    for block in range(config.vision_layers):
        name = f"visual.transformer.resblocks.{block}"
        x = _block(nodes, x, name, config.vision_heads, config.activation)
    x = nodes.add("Gather", x, nodes.index(0), axis=1)  # (B, W)
    return nodes.add("MatMul", _layer_norm(nodes, x, "visual.ln_post"), nodes.weight("visual.proj"))


def _positions_last(nodes: Nodes, x: str, width: int, positions: int) -> str:
    """Makes the grid a sequence: (B, W, G, G) -> (B, G*G, W)."""
    flat = nodes.add("Reshape", x, nodes.integers(0, width, positions))
    return nodes.add("Transpose", flat, perm=[0, 2, 1])


def _block(
    nodes: Nodes, x: str, name: str, heads: int, activation: str, mask: str | None = None
) -> str:
    """Adds attention and the MLP to x: (B, L, W) -> (B, L, W)."""
    normal = _layer_norm(nodes, x, f"{name}.ln_1")
    stacked = _linear(nodes, normal, f"{name}.attn.in_proj_weight", f"{name}.attn.in_proj_bias")
    query, key, value = nodes.split("Split", stacked, outputs=3, axis=2, num_outputs=3)
    width = nodes.shape_of(f"{name}.ln_1.weight")[0]
    mixed = _attention(nodes, (query, key, value), width, heads, mask)
    x = nodes.add("Add", x, _layer(nodes, mixed, f"{name}.attn.out_proj"))
    hidden = _layer(nodes, _layer_norm(nodes, x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
    hidden = _layer(nodes, _ACTIVATIONS[activation](nodes, hidden), f"{name}.mlp.c_proj")
    return nodes.add("Add", x, hidden)


def _attention(
    nodes: Nodes, given: tuple[str, str, str], width: int, heads: int, mask: str | None = None
) -> str:
    """Mixes the values of N positions for each of M queries.

    Shapes: (B, M, W), (B, N, W), (B, N, W) -> (B, M, W).
    """
    split = nodes.integers(0, 0, heads, width // heads)
    query, key, value = (nodes.add("Reshape", x, split) for x in given)
    query = nodes.add("Transpose", query, perm=[0, 2, 1, 3])
    query = nodes.add("Mul", query, nodes.number((width // heads) ** -0.5))
    scores = nodes.add("MatMul", query, nodes.add("Transpose", key, perm=[0, 2, 3, 1]))
    if mask is not None:
        scores = nodes.add("Add", scores, mask)
    shares = nodes.add("Softmax", scores, axis=-1)  # (B, heads, M, N)
    mixed = nodes.add("MatMul", shares, nodes.add("Transpose", value, perm=[0, 2, 1, 3]))
    mixed = nodes.add("Transpose", mixed, perm=[0, 2, 1, 3])
    return nodes.add("Reshape", mixed, nodes.integers(0, 0, width))


def _layer_norm(nodes: Nodes, x: str, name: str) -> str:
    weight, bias = nodes.weight(f"{name}.weight"), nodes.weight(f"{name}.bias")
    return nodes.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=_EPSILON)


def _layer(nodes: Nodes, x: str, name: str) -> str:
    return _linear(nodes, x, f"{name}.weight", f"{name}.bias")


def _linear(nodes: Nodes, x: str, weight: str, bias: str) -> str:
    matrix = nodes.add("Transpose", nodes.weight(weight), perm=[1, 0])
    return nodes.add("Add", nodes.add("MatMul", x, matrix), nodes.weight(bias))


def _quick_gelu(nodes: Nodes, x: str) -> str:
    gate = nodes.add("Sigmoid", nodes.add("Mul", x, nodes.number(1.702)))
    return nodes.add("Mul", x, gate)


def _gelu(nodes: Nodes, x: str) -> str:
    return nodes.add("Gelu", x)


_ACTIVATIONS = {"quick_gelu": _quick_gelu, "gelu": _gelu}


def _resnet(nodes: Nodes, config: ClipConfig) -> str:
    x = "image"
    for layer, stride in ((1, 2), (2, 1), (3, 1)):
        x = _convolution(nodes, x, f"visual.conv{layer}", f"visual.bn{layer}", stride)
        x = nodes.add("Relu", x)
    x = _pool(nodes, x)
    assert isinstance(config.vision_layers, tuple)  # noqa: S101  # a ViT has one number
    for stage, blocks in enumerate(config.vision_layers, 1):
        for block in range(blocks):
            is_smaller = stage > 1 and block == 0
            x = _bottleneck(nodes, x, f"visual.layer{stage}.{block}", is_smaller)
    return _attention_pool(nodes, x, config)


def _bottleneck(nodes: Nodes, x: str, name: str, is_smaller: bool) -> str:
    """Adds three convolutions to the shortcut. If `is_smaller`, halves the side of the grid."""
    out = nodes.add("Relu", _convolution(nodes, x, f"{name}.conv1", f"{name}.bn1"))
    out = nodes.add("Relu", _convolution(nodes, out, f"{name}.conv2", f"{name}.bn2"))
    out = _pool(nodes, out) if is_smaller else out
    out = _convolution(nodes, out, f"{name}.conv3", f"{name}.bn3")
    if nodes.has(f"{name}.downsample.0.weight"):
        x = _pool(nodes, x) if is_smaller else x
        x = _convolution(nodes, x, f"{name}.downsample.0", f"{name}.downsample.1")
    return nodes.add("Relu", nodes.add("Add", out, x))


def _convolution(nodes: Nodes, x: str, name: str, norm: str, stride: int = 1) -> str:
    """Adds a convolution that keeps the side of the grid, or divides it, and a BatchNorm."""
    side = nodes.shape_of(f"{name}.weight")[-1]
    x = nodes.add(
        "Conv",
        x,
        nodes.weight(f"{name}.weight"),
        kernel_shape=[side, side],
        strides=[stride, stride],
        pads=[side // 2] * 4,
    )
    parts = ("weight", "bias", "running_mean", "running_var")
    statistics = [nodes.weight(f"{norm}.{part}") for part in parts]
    return nodes.add("BatchNormalization", x, *statistics, epsilon=_EPSILON)


def _pool(nodes: Nodes, x: str) -> str:
    return nodes.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])


def _attention_pool(nodes: Nodes, x: str, config: ClipConfig) -> str:
    """Pools the grid by attention with one query, its mean: (B, W, G, G) -> (B, D)."""
    pool = "visual.attnpool"
    positions, width = nodes.shape_of(f"{pool}.positional_embedding")
    x = _positions_last(nodes, x, width, positions - 1)
    mean = nodes.add("ReduceMean", x, nodes.integers(1), keepdims=1)
    x = nodes.add("Concat", mean, x, axis=1)  # (B, 1 + G*G, W)
    x = nodes.add("Add", x, nodes.weight(f"{pool}.positional_embedding"))
    first = nodes.add("Gather", x, nodes.integers(0), axis=1)  # (B, 1, W)
    query = _layer(nodes, first, f"{pool}.q_proj")
    key, value = _layer(nodes, x, f"{pool}.k_proj"), _layer(nodes, x, f"{pool}.v_proj")
    mixed = _attention(nodes, (query, key, value), width, config.vision_heads)
    mixed = nodes.add("Squeeze", mixed, nodes.integers(1))
    return _layer(nodes, mixed, f"{pool}.c_proj")
