"""oneDNN layers for the CPU: packed weights, fused activations and residuals, int8 products.

The gain: in float32, `F.linear` (MKL) reaches 126 to 191 GFLOP/s where oneDNN reaches 214 with
packed weights (benchmarks/RESULTS.md, AMD EPYC, family 25).

Nothing simpler does this: `F.linear` neither packs weights nor fuses anything, and `torch.compile`
needs a C++ compiler and time at the first call. The operators here are those of torch's compiler
(`torch.ops.mkldnn`, `torch.ops.onednn`). They are private, so a later torch may change them.
Therefore each operator runs on a small input before it is used. If it is missing or wrong, plain
torch computes the layers.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hfclip.config import Activation
from hfclip.errors import ArgumentError, OptimizationError
from hfclip.fast.kernels import (
    ACTIVATIONS,
    QUICK,
    BlockKernels,
    Convolution,
    Kernel,
    Kernels,
    Linear,
    Mlp,
    PlainKernels,
    Portable,
    Precision,
    StoredTensor,
    Toolbox,
    name_of,
    plain_toolbox,
)
from hfclip.fast.processor import has_instructions

# Number of steps in the range of uint8. It is one less than 255, so that both ends may round up.
_STEPS = 254
# Batch size that convolutions are packed for. Any batch size above one runs as fast.
_PACKED_BATCH = 8
# Largest number of output channels of a convolution that is packed a second time for one image.
_NARROW_CHANNELS = 128
_TINY = torch.finfo(torch.float32).tiny


class PackedKernels:
    """Makes oneDNN layers in float32 or bfloat16, with packed weights and fused activations."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.precision = dtype, name_of(dtype)

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        """Makes a layer, see `BlockKernels.linear`."""
        return _PackedLinear(weight, bias, self.dtype)

    def qkv(self, weight: Tensor, bias: Tensor) -> Linear:
        """Makes a layer, see `BlockKernels.qkv`."""
        return self.linear(weight, bias)

    def mlp(self, layers: Mlp, activation: Activation) -> tuple[Linear, Linear]:
        """Makes two layers, see `BlockKernels.mlp`. QuickGELU becomes SiLU, see `folded`."""
        first, second = folded(layers) if activation == "quick_gelu" else layers
        fused = _FUSED_ACTIVATIONS[activation]
        return _PackedLinear(*first, self.dtype, *fused), self.linear(*second)

    def convolution(self, kernel: Kernel, *, relu: bool) -> Convolution:
        """Makes a convolution, see `Kernels.convolution`."""
        return _PackedConvolution(kernel, self.dtype, relu=relu)


# oneDNN's name of each fused activation, and of the algorithm that computes it.
_FUSED_ACTIVATIONS: dict[Activation, tuple[str, str]] = {
    "quick_gelu": ("swish", ""),
    "gelu": ("gelu", "none"),
}


def folded(layers: Mlp) -> Mlp:
    """Returns an MLP that computes with SiLU what `layers` compute with QuickGELU.

    oneDNN fuses SiLU, but not QuickGELU, which equals SiLU(1.702 x) / 1.702. The weights take over
    both factors.
    """
    (weight, bias), (out_weight, out_bias) = layers
    return (weight * QUICK, bias * QUICK), (out_weight / QUICK, out_bias)


class _Packed:
    """A weight in oneDNN's packed format. It is copied and pickled as a plain tensor.

    Attributes:
        tensor: The packed weight, an argument of oneDNN's operators.
    """

    def __init__(self, weight: Tensor, operator: str, *options: object) -> None:
        self.tensor: Tensor = _operator(operator)(weight, *options)
        self._operator, self._options = operator, options

    def __reduce__(self) -> tuple[object, ...]:
        weight = self.tensor.to_dense()
        if self._operator == _PACK_INT8:
            weight = weight.t()  # this operator packs the transposed weight
        return _pack_again, (StoredTensor.of(weight.contiguous()), self._operator, *self._options)


_PACK_LINEAR = "mkldnn::_reorder_linear_weight"
_PACK_CONVOLUTION = "mkldnn::_reorder_convolution_weight"
_PACK_INT8 = "onednn::qlinear_prepack"


def _pack_again(stored: StoredTensor, operator: str, *options: object) -> _Packed:
    """Packs a weight that was copied or pickled, perhaps on another machine.

    Raises:
        OptimizationError: The operators are missing or wrong on this machine.
    """
    works = _multiplies_int8() if operator == _PACK_INT8 else _packs(stored.dtype)
    if not works:
        raise OptimizationError(
            f"The pickled FastCLIP needs {operator} for {stored.dtype}, which is missing or wrong "
            "with the torch and the processor of this machine. Load the model here and call "
            "hfclip.optimize."
        )
    return _Packed(stored.restored(), operator, *options)


class _PackedLinear(Portable):
    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        activation: str = "none",
        algorithm: str = "",
    ) -> None:
        self._weight = _Packed(weight.to(dtype).contiguous(), _PACK_LINEAR)
        self._bias = None if bias is None else bias.to(dtype)
        self._activation, self._algorithm = activation, algorithm

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y: Tensor
        weight, product = self._weight.tensor, _operator("mkldnn::_linear_pointwise")
        if residual is None:
            y = product(x, weight, self._bias, self._activation, [], self._algorithm)
        else:
            y = product.binary(x, residual, weight, self._bias, "add")
        return y


class _PackedConvolution(Portable):
    """A convolution with packed weights, some of them packed twice.

    A weight that is packed for many images may be packed again at every call with one image. A
    second packed copy avoids this: RN50, one image at a time, went from 7.7 to 16 images a second
    with AVX-512, and from 2.7 to 5.5 with AVX2 (benchmarks/RESULTS.md). The processor decides which
    weights are concerned. Wide 3 x 3 weights, half of all weights, never are: one copy is enough.
    """

    def __init__(self, kernel: Kernel, dtype: torch.dtype, *, relu: bool) -> None:
        padding, stride = [kernel.padding] * 2, [kernel.stride] * 2
        self._geometry: tuple[object, ...] = (padding, stride, [1, 1], 1)
        self._many = self._pack(kernel, dtype, _PACKED_BATCH)
        channels, _, height, _ = kernel.weight.shape
        needs_copy = height == 1 or channels <= _NARROW_CHANNELS
        self._one = self._pack(kernel, dtype, 1) if needs_copy else self._many
        self._bias = kernel.bias.to(dtype)
        self._activation = "relu" if relu else "none"

    def _pack(self, kernel: Kernel, dtype: torch.dtype, images: int) -> _Packed:
        shape = [images, kernel.weight.shape[1], kernel.side, kernel.side]
        return _Packed(kernel.weight.to(dtype), _PACK_CONVOLUTION, *self._geometry, shape)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        weight = (self._one if len(x) == 1 else self._many).tensor
        operands = (x, weight, self._bias, *self._geometry)
        y: Tensor
        if residual is None:
            convolve = _operator("mkldnn::_convolution_pointwise")
            y = convolve(*operands, self._activation, [], "")
        else:
            convolve = _operator("mkldnn::_convolution_pointwise_").binary
            y = convolve(residual, *operands, "add", 1.0, self._activation, [], "")
        return y


class QuantizedKernels:
    """Makes oneDNN layers that multiply in int8 and keep float32 activations between layers.

    A weight has one scale for each row. An input has one scale and one zero point, which each call
    computes, so no calibration is needed. Queries, keys and values have `attention_dtype`.
    """

    dtype = torch.float32
    precision: Precision = "int8"

    def __init__(self, attention_dtype: torch.dtype) -> None:
        self._attention_dtype = attention_dtype

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        """Makes a layer, see `BlockKernels.linear`."""
        return _QuantizedLinear(weight, bias)

    def qkv(self, weight: Tensor, bias: Tensor) -> Linear:
        """Makes a layer, see `BlockKernels.qkv`."""
        return _QuantizedLinear(weight, bias, out_dtype=self._attention_dtype)

    def mlp(self, layers: Mlp, activation: Activation) -> tuple[Linear, Linear]:
        """Makes two layers, see `BlockKernels.mlp`. QuickGELU becomes SiLU, see `folded`."""
        first, second = folded(layers) if activation == "quick_gelu" else layers
        return _QuantizedLinear(*first, *_FUSED_ACTIVATIONS[activation]), self.linear(*second)


class _QuantizedLinear(Portable):
    """A linear layer that multiplies in int8: (T, in) float32 -> (T, out) in `out_dtype`."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        activation: str = "none",
        algorithm: str = "",
        out_dtype: torch.dtype = torch.float32,
    ) -> None:
        scales = (weight.abs().amax(dim=1) / 127).clamp_min(_TINY)
        integers = (weight / scales[:, None]).round_().to(torch.int8)
        self._weight = _Packed(integers, _PACK_INT8, None)
        self._scales = scales
        self._zeros = torch.zeros_like(scales, dtype=torch.int64)
        self._bias, self._activation, self._algorithm = bias, activation, algorithm
        self._out_dtype = out_dtype

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        operands = (*quantize(x.float()), self._weight.tensor, self._scales, self._zeros)
        product = _operator("onednn::qlinear_pointwise")
        ends = (self._bias, 1.0, 0, self._out_dtype)
        y: Tensor
        if residual is None:
            y = product(*operands, *ends, self._activation, [], self._algorithm)
        else:
            y = product.binary(*operands, residual, *ends, 1.0, 0, "add", 1.0, "none", [], "")
        return y


def quantize(x: Tensor) -> tuple[Tensor, float, int]:
    """Rounds x to 255 evenly spaced values from its minimum to its maximum, 0 included.

    Args:
        x: A float32 tensor of any shape. It is overwritten, because new memory costs more time than
            the arithmetic.

    Returns:
        The integers as uint8, the scale and the zero point. x is about
        (integers - zero point) * scale. A zero in x is represented exactly.
    """
    low, high = (edge.item() for edge in torch.aminmax(x))
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / _STEPS
    if scale < _TINY:  # x is zero or almost, and the reciprocal of the scale may be infinite
        scale = 1.0
    if not math.isfinite(scale):
        return torch.zeros_like(x, dtype=torch.uint8), math.nan, 0
    zero = round(-low / scale)
    # All values are positive, so truncation after adding 0.5 rounds. The detour over int16 is four
    # times faster than a cast to uint8.
    torch.add(x.new_tensor(zero + 0.5), x, alpha=1 / scale, out=x)
    return x.to(torch.int16).to(torch.uint8), scale, zero


@cache
def _operator(name: str) -> Any:
    """Returns a private operator of torch by its full name, such as "mkldnn::_linear_pointwise".

    Raises:
        AttributeError: This torch has no operator of that name.
    """
    namespace, _, operator = name.partition("::")
    return getattr(getattr(torch.ops, namespace), operator)


def toolbox(precision: Precision, device: torch.device) -> Toolbox:
    """Returns the fastest kernels that work on this machine and are at least as precise as asked.

    If the processor has no instructions for a precision, the next higher precision is used, which
    is faster there. Without instructions for int8, its sums would also overflow silently.

    Args:
        precision: The lowest precision to use.
        device: The device of the model.

    Raises:
        ArgumentError: `precision` is "int8" and the device is not a CPU.
    """
    if device.type != "cpu":
        if precision == "int8":
            raise ArgumentError(
                f"int8 needs a CPU, but the model is on {device}. Choose 'bfloat16'."
            )
        return plain_toolbox(getattr(torch, precision))
    in_float32 = precision == "float32" or not has_instructions("bfloat16")
    dtype = torch.float32 if in_float32 else torch.bfloat16
    rest: Kernels = PackedKernels(dtype) if _packs(dtype) else PlainKernels(dtype)
    quantized = precision == "int8" and _multiplies_int8()
    blocks = QuantizedKernels(dtype) if quantized else rest
    return Toolbox(blocks, blocks, rest)


def _multiplies_int8() -> bool:
    return has_instructions("int8") and _quantizes()


@cache
def _packs(dtype: torch.dtype) -> bool:
    limit = 1e-5 if dtype == torch.float32 else 0.05
    kernels = PackedKernels(dtype)
    return _agrees(lambda: _linear_outputs(kernels) + _convolution_outputs(kernels), limit)


@cache
def _quantizes() -> bool:
    return _agrees(lambda: _linear_outputs(QuantizedKernels(torch.bfloat16)), 0.1)


def _agrees(probe: Callable[[], list[Tensor]], limit: float) -> bool:
    """Returns whether operators exist, run, and agree with plain torch in float32.

    `limit` is the largest accepted norm of a difference, relative to the norm of torch's result.
    """
    plain = PlainKernels(torch.float32)
    try:
        found = probe()
    except (AttributeError, RuntimeError, TypeError):  # missing, unsupported here, or changed
        return False
    pairs = zip(found, _linear_outputs(plain) + _convolution_outputs(plain), strict=False)
    return all(bool((ours - right).norm() <= limit * right.norm()) for ours, right in pairs)


@torch.no_grad()
def _linear_outputs(kernels: BlockKernels) -> list[Tensor]:
    """Computes each kind of linear layer for small, fixed inputs."""
    draw = _random_tensors()
    layers = ((draw(64, 16), draw(64)), (draw(16, 64), draw(16)))
    x, residual = draw(3, 16).to(kernels.dtype), draw(3, 16).to(kernels.dtype)
    found = [kernels.qkv(*layers[0])(x.clone())]
    for activation in ACTIVATIONS:
        first, second = kernels.mlp(layers, activation)
        found += [second(first(x.clone())), second(first(x.clone()), residual)]
    return [y.float() for y in found]


@torch.no_grad()
def _convolution_outputs(kernels: Kernels) -> list[Tensor]:
    """Computes each kind of convolution for small, fixed inputs."""
    draw = _random_tensors()
    x, residual = draw(2, 4, 8, 8).to(kernels.dtype), draw(2, 8, 4, 4).to(kernels.dtype)
    x, residual = (t.contiguous(memory_format=torch.channels_last) for t in (x, residual))
    kernel = Kernel(draw(8, 4, 3, 3), draw(8), padding=1, stride=2, side=8)
    convolution = kernels.convolution(kernel, relu=True)
    projection = kernels.convolution(
        Kernel(draw(6, 4, 1, 1), draw(6), padding=0, stride=1, side=8), relu=False
    )
    found = [convolution(x), projection(x), convolution(x, residual)]
    return [y.float() for y in found]


def _random_tensors() -> Callable[..., Tensor]:
    """Returns a function that draws a tensor of a shape, with a fixed seed."""
    # Every argument is given, because a program may change torch's default device and dtype.
    random = torch.Generator("cpu").manual_seed(0)

    def draw(*shape: int) -> Tensor:
        numbers = torch.randn(*shape, generator=random, device="cpu", dtype=torch.float32)
        return numbers / math.sqrt(math.prod(shape[1:]))

    return draw
