"""Layers of oneDNN on the CPU: packed weights, fused tails, products of eight-bit integers.

torch reaches these through operators that it has for its own compiler (`torch.ops.mkldnn`,
`torch.ops.onednn`) and that are not public. So each is run once on a small input before it is
relied on, and where it is missing or wrong plain torch does the same.
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

# One less than eight bits hold: rounding may then go up at both ends.
_STEPS = 254
# Images in a batch that convolutions are packed for; more than one do as well.
_IMAGES = 8
# Channels up to which a kernel is packed a second time for one image.
_NARROW = 128
_TINY = torch.finfo(torch.float32).tiny


class PackedKernels:
    """oneDNN on the CPU, in float32 or bfloat16: weights in its own blocks, tails fused."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.precision = dtype, name_of(dtype)

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        """As `BlockKernels.linear`."""
        return _PackedLinear(weight, bias, self.dtype)

    def qkv(self, weight: Tensor, bias: Tensor) -> Linear:
        """As `BlockKernels.qkv`."""
        return self.linear(weight, bias)

    def mlp(self, layers: Mlp, activation: Activation) -> tuple[Linear, Linear]:
        """As `BlockKernels.mlp`; QuickGELU becomes SiLU by its factor in the weights around it."""
        first, second = folded(layers) if activation == "quick_gelu" else layers
        tail = _TAILS[activation]
        return _PackedLinear(*first, self.dtype, *tail), self.linear(*second)

    def convolution(self, kernel: Kernel, *, relu: bool) -> Convolution:
        """As `Kernels.convolution`."""
        return _PackedConvolution(kernel, self.dtype, relu=relu)


# The names of the fused activation, and of the algorithm that computes it.
_TAILS: dict[Activation, tuple[str, str]] = {"quick_gelu": ("swish", ""), "gelu": ("gelu", "none")}


def folded(layers: Mlp) -> Mlp:
    """The MLP that is the same with SiLU for QuickGELU, which is SiLU(1.702 x) / 1.702."""
    (weight, bias), (out_weight, out_bias) = layers
    return (weight * QUICK, bias * QUICK), (out_weight / QUICK, out_bias)


class _Packed:
    """A weight in oneDNN's own blocks. It is copied and pickled as a plain tensor.

    Attributes:
        tensor: The packed weight, as oneDNN's operators take it.
    """

    def __init__(self, weight: Tensor, operator: str, *options: object) -> None:
        self.tensor: Tensor = _operator(operator)(weight, *options)
        self._operator, self._options = operator, options

    def __reduce__(self) -> tuple[object, ...]:
        weight = self.tensor.to_dense()
        if self._operator == _PACK_INT8:
            weight = weight.t()  # it is packed with rows and columns swapped
        return _pack_again, (StoredTensor.of(weight.contiguous()), self._operator, *self._options)


_PACK_LINEAR = "mkldnn::_reorder_linear_weight"
_PACK_CONVOLUTION = "mkldnn::_reorder_convolution_weight"
_PACK_INT8 = "onednn::qlinear_prepack"


def _pack_again(stored: StoredTensor, operator: str, *options: object) -> _Packed:
    """Packs a weight that was copied or pickled, perhaps on another machine.

    Raises:
        OptimizationError: The operators are missing or wrong here.
    """
    works = _multiplies_int8() if operator == _PACK_INT8 else _packs(stored.dtype)
    if not works:
        raise OptimizationError(
            f"This FastCLIP was pickled on a machine whose torch and processor have {operator} "
            f"for {stored.dtype}; here it is missing or wrong. Load the model here and call "
            "hfclip.optimize."
        )
    return _Packed(stored.restored(), operator, *options)


class _PackedLinear(Portable):
    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        tail: str = "none",
        algorithm: str = "",
    ) -> None:
        self._weight = _Packed(weight.to(dtype).contiguous(), _PACK_LINEAR)
        self._bias = None if bias is None else bias.to(dtype)
        self._tail, self._algorithm = tail, algorithm

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y: Tensor
        weight, product = self._weight.tensor, _operator("mkldnn::_linear_pointwise")
        if residual is None:
            y = product(x, weight, self._bias, self._tail, [], self._algorithm)
        else:
            y = product.binary(x, residual, weight, self._bias, "add")
        return y


class _PackedConvolution(Portable):
    def __init__(self, kernel: Kernel, dtype: torch.dtype, *, relu: bool) -> None:
        padding, stride = [kernel.padding] * 2, [kernel.stride] * 2
        self._geometry: tuple[object, ...] = (padding, stride, [1, 1], 1)
        self._many = self._pack(kernel, dtype, _IMAGES)
        # Packed for many images, some kernels are packed anew at every call with one. Which ones,
        # depends on the processor; wide ones of 3 x 3, half of all weights, never were.
        channels, _, height, _ = kernel.weight.shape
        again = height == 1 or channels <= _NARROW
        self._one = self._pack(kernel, dtype, 1) if again else self._many
        self._bias = kernel.bias.to(dtype)
        self._tail = "relu" if relu else "none"

    def _pack(self, kernel: Kernel, dtype: torch.dtype, images: int) -> _Packed:
        shape = [images, kernel.weight.shape[1], kernel.side, kernel.side]
        return _Packed(kernel.weight.to(dtype), _PACK_CONVOLUTION, *self._geometry, shape)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        weight = (self._one if len(x) == 1 else self._many).tensor
        operands = (x, weight, self._bias, *self._geometry)
        y: Tensor
        if residual is None:
            convolve = _operator("mkldnn::_convolution_pointwise")
            y = convolve(*operands, self._tail, [], "")
        else:
            convolve = _operator("mkldnn::_convolution_pointwise_").binary
            y = convolve(residual, *operands, "add", 1.0, self._tail, [], "")
        return y


class QuantizedKernels:
    """oneDNN's products of eight-bit integers; what lies between them is float32.

    Weights have a scale for each row; inputs have one scale and zero point, found anew for each
    call, so that nothing needs to be calibrated. Queries, keys and values come out in
    `attention_dtype`.
    """

    dtype = torch.float32
    precision: Precision = "int8"

    def __init__(self, attention_dtype: torch.dtype) -> None:
        self._attention_dtype = attention_dtype

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        """As `BlockKernels.linear`."""
        return _QuantizedLinear(weight, bias)

    def qkv(self, weight: Tensor, bias: Tensor) -> Linear:
        """As `BlockKernels.qkv`."""
        return _QuantizedLinear(weight, bias, out_dtype=self._attention_dtype)

    def mlp(self, layers: Mlp, activation: Activation) -> tuple[Linear, Linear]:
        """As `BlockKernels.mlp`."""
        first, second = folded(layers) if activation == "quick_gelu" else layers
        return _QuantizedLinear(*first, *_TAILS[activation]), self.linear(*second)


class _QuantizedLinear(Portable):
    """A linear layer in eight bits: (T, in) float32 -> (T, out) float32 or `out_dtype`."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        tail: str = "none",
        algorithm: str = "",
        out_dtype: torch.dtype = torch.float32,
    ) -> None:
        scales = (weight.abs().amax(dim=1) / 127).clamp_min(_TINY)
        integers = (weight / scales[:, None]).round_().to(torch.int8)
        self._weight = _Packed(integers, _PACK_INT8, None)
        self._scales = scales
        self._zeros = torch.zeros_like(scales, dtype=torch.int64)
        self._bias, self._tail, self._algorithm = bias, tail, algorithm
        self._out_dtype = out_dtype

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        operands = (*quantize(x.float()), self._weight.tensor, self._scales, self._zeros)
        product = _operator("onednn::qlinear_pointwise")
        ends = (self._bias, 1.0, 0, self._out_dtype)
        y: Tensor
        if residual is None:
            y = product(*operands, *ends, self._tail, [], self._algorithm)
        else:
            y = product.binary(*operands, residual, *ends, 1.0, 0, "add", 1.0, "none", [], "")
        return y


def quantize(x: Tensor) -> tuple[Tensor, float, int]:
    """Rounds to one of 255 even steps from the least to the greatest: (uint8, scale, zero point).

    x is about (uint8 - zero point) * scale, and a zero stays exactly zero. x, in float32, is
    overwritten: fresh memory costs more than the arithmetic.
    """
    low, high = (edge.item() for edge in torch.aminmax(x))
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / _STEPS
    if scale < _TINY:  # all but zero, and its reciprocal no number
        scale = 1.0
    if not math.isfinite(scale):
        return torch.zeros_like(x, dtype=torch.uint8), math.nan, 0
    zero = round(-low / scale)
    # Positive, so that cutting the fraction off rounds. Straight to uint8 is four times slower.
    torch.add(x.new_tensor(zero + 0.5), x, alpha=1 / scale, out=x)
    return x.to(torch.int16).to(torch.uint8), scale, zero


@cache
def _operator(name: str) -> Any:
    """Returns one of torch's own operators by its full name.

    Raises:
        AttributeError: This torch has none of that name.
    """
    namespace, _, operator = name.partition("::")
    return getattr(getattr(torch.ops, namespace), operator)


# What a processor of the x86 kind needs to multiply in a type faster than in float32.
_INSTRUCTIONS: dict[Precision, tuple[str, ...]] = {
    "float32": (),
    "bfloat16": ("avx512_bf16", "amx_bf16"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8"),
}


def toolbox(precision: Precision, device: torch.device) -> Toolbox:
    """The fastest kernels that work here and are at least as precise as asked for.

    Where the processor has no instructions for a type, the next more precise one takes its place:
    it is faster there. Nor is "int8" then right: its sums would overflow without a word.

    Raises:
        ArgumentError: `precision` is "int8" and the device is not a CPU.
    """
    if device.type != "cpu":
        if precision == "int8":
            raise ArgumentError(
                f"int8 is for the CPU and the model is on {device}: choose bfloat16."
            )
        return plain_toolbox(getattr(torch, precision))
    whole = precision == "float32" or not _has_instructions("bfloat16")
    dtype = torch.float32 if whole else torch.bfloat16
    rest: Kernels = PackedKernels(dtype) if _packs(dtype) else PlainKernels(dtype)
    quantized = precision == "int8" and _multiplies_int8()
    blocks = QuantizedKernels(dtype) if quantized else rest
    return Toolbox(blocks, blocks, rest)


def _multiplies_int8() -> bool:
    return _has_instructions("int8") and _quantizes()


def _has_instructions(precision: Precision) -> bool:
    """Whether this processor multiplies in a type; where torch does not tell, it is taken to."""
    found = _capabilities()
    other = found.get("architecture") != "x86_64"
    return other or any(found.get(name) for name in _INSTRUCTIONS[precision])


def instructions() -> tuple[str, ...]:
    """Returns the names of the processor's instructions that make bfloat16 or int8 faster.

    The result is empty where torch does not report them, for example on ARM.
    """
    found = _capabilities()
    return tuple(name for names in _INSTRUCTIONS.values() for name in names if found.get(name))


def _capabilities() -> dict[str, Any]:
    """Returns what torch reports about the processor; nothing in versions that lack it."""
    ask = getattr(torch.cpu, "get_capabilities", dict)
    found: dict[str, Any] = ask()
    return found


@cache
def _packs(dtype: torch.dtype) -> bool:
    limit = 1e-5 if dtype == torch.float32 else 0.05
    return _agrees(lambda: _results(PackedKernels(dtype)) + _convolved(PackedKernels(dtype)), limit)


@cache
def _quantizes() -> bool:
    return _agrees(lambda: _results(QuantizedKernels(torch.bfloat16)), 0.1)


def _agrees(probe: Callable[[], list[Tensor]], limit: float) -> bool:
    """Whether operators exist, run, and give what plain torch gives in float32."""
    plain = PlainKernels(torch.float32)
    try:
        found = probe()
    except (AttributeError, RuntimeError, TypeError):  # missing, not for this machine, changed
        return False
    pairs = zip(found, _results(plain) + _convolved(plain), strict=False)
    return all(bool((ours - own).norm() <= limit * own.norm()) for ours, own in pairs)


@torch.no_grad()
def _results(kernels: BlockKernels) -> list[Tensor]:
    """What each kind of product gives for small numbers, always the same."""
    draw = _numbers()
    layers = ((draw(64, 16), draw(64)), (draw(16, 64), draw(16)))
    x, residual = draw(3, 16).to(kernels.dtype), draw(3, 16).to(kernels.dtype)
    found = [kernels.qkv(*layers[0])(x.clone())]
    for activation in ACTIVATIONS:
        first, second = kernels.mlp(layers, activation)
        found += [second(first(x.clone())), second(first(x.clone()), residual)]
    return [y.float() for y in found]


@torch.no_grad()
def _convolved(kernels: Kernels) -> list[Tensor]:
    """The same of convolutions."""
    draw = _numbers()
    x, residual = draw(2, 4, 8, 8).to(kernels.dtype), draw(2, 8, 4, 4).to(kernels.dtype)
    x, residual = (t.contiguous(memory_format=torch.channels_last) for t in (x, residual))
    kernel = Kernel(draw(8, 4, 3, 3), draw(8), padding=1, stride=2, side=8)
    convolution = kernels.convolution(kernel, relu=True)
    projection = kernels.convolution(
        Kernel(draw(6, 4, 1, 1), draw(6), padding=0, stride=1, side=8), relu=False
    )
    found = [convolution(x), projection(x), convolution(x, residual)]
    return [y.float() for y in found]


def _numbers() -> Callable[..., Tensor]:
    # Every argument is given, because a program may change torch's default device and dtype.
    random = torch.Generator("cpu").manual_seed(0)

    def draw(*shape: int) -> Tensor:
        numbers = torch.randn(*shape, generator=random, device="cpu", dtype=torch.float32)
        return numbers / math.sqrt(math.prod(shape[1:]))

    return draw
