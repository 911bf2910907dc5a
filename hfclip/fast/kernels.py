"""What the fast encoders are made of: layers of one kind, here those of plain torch.

`hfclip.fast.onednn` has the same ones in other words, faster where they can be had.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, Self, cast

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor

from hfclip.config import Activation

Precision = Literal["float32", "bfloat16", "int8"]

# QuickGELU is x * sigmoid(1.702 x).
QUICK = 1.702


class StoredTensor(NamedTuple):
    """A tensor for pickles: its numbers alone, without the rest of a storage that it shares.

    torch.multiprocessing sends a tensor as a file descriptor, which is closed too early for a
    tensor that is made for the pickle. Bytes have no such limit.

    Attributes:
        dtype: The tensor's.
        shape: Of the tensor with its dimensions in `order`.
        order: The dimensions as they lie in memory, the outermost first: kernels sum in this order.
        device: The tensor's.
        data: The numbers.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    order: tuple[int, ...]
    device: torch.device
    data: bytes

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Stores a dense tensor of any shape."""
        order = tuple(sorted(range(tensor.ndim), key=tensor.stride, reverse=True))
        ordered = tensor.detach().cpu().permute(order).contiguous()
        data = ordered.flatten().view(torch.uint8).numpy().tobytes()
        return cls(tensor.dtype, tuple(ordered.shape), order, tensor.device, data)

    def restored(self) -> Tensor:
        """Returns the tensor, on the device where it was."""
        flat = torch.frombuffer(bytearray(self.data), dtype=self.dtype)
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return flat.view(self.shape).permute(inverse).to(self.device)


class Portable:
    """Has attributes that are tensors, and can be copied and pickled."""

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: StoredTensor.of(value) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.restored() if isinstance(value, StoredTensor) else value)


class Linear(Protocol):
    """A linear layer with whatever comes after it: (T, in) -> (T, out), plus a residual if any."""

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Multiplies, may overwrite x, and adds `residual`, (T, out), which is left as it is."""
        ...


class Convolution(Protocol):
    """A convolution with whatever comes after it: (B, in, H, H) -> (B, out, H', H')."""

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Convolves; adds `residual`, of the result's shape, before the ReLU; may overwrite it."""
        ...


class BlockKernels(Protocol):
    """Makes the layers of transformers.

    `dtype` is what activations are kept in between them, `precision` what they are multiplied in.

    Weights and biases come in as float32 and are shared where they can be used as they are.
    """

    dtype: torch.dtype
    precision: Precision

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        """Of a weight (out, in) and a bias (out,)."""
        ...

    def qkv(self, weight: Tensor, bias: Tensor) -> Linear:
        """As `linear`; the result may be of the type in which attention is fastest."""
        ...

    def mlp(self, layers: "Mlp", activation: Activation) -> tuple[Linear, Linear]:
        """Both layers of an MLP, the activation in the first of them."""
        ...


class Kernels(BlockKernels, Protocol):
    """Makes the layers of everything."""

    def convolution(self, kernel: "Kernel", *, relu: bool) -> Convolution:
        """Of a folded kernel, followed by a ReLU or by nothing."""
        ...


class Kernel(NamedTuple):
    """What a convolution is made of.

    Attributes:
        weight: (out, in, K, K) float32.
        bias: (out,) float32.
        padding: On each side.
        stride: In both directions.
        side: Of the squares that come in.
    """

    weight: Tensor
    bias: Tensor
    padding: int
    stride: int
    side: int


# (weight, bias) of an MLP's two layers
Mlp = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def quick_gelu(x: Tensor) -> Tensor:
    """Computes x * sigmoid(1.702 x), into x."""
    return x.mul_(torch.sigmoid(x * QUICK))


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
}


def name_of(dtype: torch.dtype) -> Precision:
    """A type's name without torch's."""
    return cast("Precision", str(dtype).removeprefix("torch."))


class PlainKernels:
    """Plain torch, on any device and in any type; in float32 it shares every weight."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.precision = dtype, name_of(dtype)

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        """As `BlockKernels.linear`."""
        return _PlainLinear(weight, bias, self.dtype)

    def qkv(self, weight: Tensor, bias: Tensor) -> Linear:
        """As `BlockKernels.qkv`."""
        return self.linear(weight, bias)

    def mlp(self, layers: Mlp, activation: Activation) -> tuple[Linear, Linear]:
        """As `BlockKernels.mlp`."""
        first, second = layers
        return _PlainLinear(*first, self.dtype, ACTIVATIONS[activation]), self.linear(*second)

    def convolution(self, kernel: Kernel, *, relu: bool) -> Convolution:
        """As `Kernels.convolution`."""
        return _PlainConvolution(kernel, self.dtype, relu=relu)


class _PlainLinear(Portable):
    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._weight = weight.to(dtype)
        self._bias = None if bias is None else bias.to(dtype)
        self._activation = activation

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = F.linear(x, self._weight, self._bias)
        if self._activation is not None:
            y = self._activation(y)
        return y if residual is None else y.add_(residual)


class _PlainConvolution(Portable):
    def __init__(self, kernel: Kernel, dtype: torch.dtype, *, relu: bool) -> None:
        self._weight = kernel.weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self._bias = kernel.bias.to(dtype)
        self._padding, self._stride, self._relu = kernel.padding, kernel.stride, relu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = F.conv2d(x, self._weight, self._bias, self._stride, self._padding)
        if residual is not None:
            y.add_(residual)
        return y.relu_() if self._relu else y


class Toolbox(NamedTuple):
    """Which kernels compute what.

    Attributes:
        images: The blocks of a ViT.
        texts: The blocks of the text tower.
        rest: All else: patches, ResNets and their pooling.
    """

    images: BlockKernels
    texts: BlockKernels
    rest: Kernels


def plain_toolbox(dtype: torch.dtype) -> Toolbox:
    """Plain torch for everything."""
    kernels = PlainKernels(dtype)
    return Toolbox(kernels, kernels, kernels)
