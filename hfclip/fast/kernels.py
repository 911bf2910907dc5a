"""The interfaces of the layers that the fast encoders use, and their implementation in plain torch.

`onednn` implements the same interfaces with oneDNN, which is faster where it is available.
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
    """A tensor as bytes, for pickles.

    A pickled tensor would not work here. torch.multiprocessing sends a tensor as a file descriptor,
    which is closed too early if the tensor was made for the pickle. A tensor that shares its
    storage would also bring the rest of the storage.

    Attributes:
        dtype: The dtype of the tensor.
        shape: The shape of the tensor after its dimensions were permuted to `order`.
        order: The dimensions in their order in memory, outermost first. It is kept because kernels
            sum in this order.
        device: The device of the tensor.
        data: The elements of the tensor.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    order: tuple[int, ...]
    device: torch.device
    data: bytes

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Copies a dense tensor of any shape."""
        order = tuple(sorted(range(tensor.ndim), key=tensor.stride, reverse=True))
        ordered = tensor.detach().cpu().permute(order).contiguous()
        data = ordered.flatten().view(torch.uint8).numpy().tobytes()
        return cls(tensor.dtype, tuple(ordered.shape), order, tensor.device, data)

    def restored(self) -> Tensor:
        """Returns the tensor on its original device."""
        flat = torch.frombuffer(bytearray(self.data), dtype=self.dtype)
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return flat.view(self.shape).permute(inverse).to(self.device)


class Portable:
    """Copies and pickles objects with tensors as attributes. See `StoredTensor`."""

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: StoredTensor.of(value) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.restored() if isinstance(value, StoredTensor) else value)


class Linear(Protocol):
    """A linear layer with an optional activation and an optional residual: (T, in) -> (T, out)."""

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Applies the layer and adds `residual` (T, out). May overwrite x, but not `residual`."""
        ...


class Convolution(Protocol):
    """A convolution, an optional residual and a ReLU: (B, in, H, H) -> (B, out, H', H')."""

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Convolves, then adds `residual` (B, out, H', H') before the ReLU. May overwrite it."""
        ...


class BlockKernels(Protocol):
    """Makes the layers of transformers.

    Weights and biases are float32. The layers share them where they need no conversion.

    Attributes:
        dtype: The dtype of the activations between layers.
        precision: The precision of the matrix products.
    """

    dtype: torch.dtype
    precision: Precision

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        """Makes a layer from a weight (out, in) and a bias (out,)."""
        ...

    def qkv(self, weight: Tensor, bias: Tensor) -> Linear:
        """Makes a layer as `linear` does. Its result has the fastest dtype for attention."""
        ...

    def mlp(self, layers: "Mlp", activation: Activation) -> tuple[Linear, Linear]:
        """Makes both layers of an MLP. The first applies the activation."""
        ...


class Kernels(BlockKernels, Protocol):
    """Makes the layers of transformers and of ResNets."""

    def convolution(self, kernel: "Kernel", *, relu: bool) -> Convolution:
        """Makes a convolution from a folded kernel, with or without a ReLU after it."""
        ...


class Kernel(NamedTuple):
    """The weights and the geometry of a convolution.

    Attributes:
        weight: The weight, (out, in, K, K) float32.
        bias: The bias, (out,) float32.
        padding: The padding on each side, in pixels.
        stride: The stride in both directions.
        side: The height and width of the input, in pixels.
    """

    weight: Tensor
    bias: Tensor
    padding: int
    stride: int
    side: int


# (weight, bias) of each of the two layers of an MLP.
Mlp = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def quick_gelu(x: Tensor) -> Tensor:
    """Computes x * sigmoid(1.702 x) in place."""
    return x.mul_(torch.sigmoid(x * QUICK))


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
}


def name_of(dtype: torch.dtype) -> Precision:
    """Returns the name of a dtype without "torch."."""
    return cast("Precision", str(dtype).removeprefix("torch."))


class PlainKernels:
    """Makes layers of plain torch, for any device and dtype. In float32 they share all weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.precision = dtype, name_of(dtype)

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        """Makes a layer, see `BlockKernels.linear`."""
        return _PlainLinear(weight, bias, self.dtype)

    def qkv(self, weight: Tensor, bias: Tensor) -> Linear:
        """Makes a layer, see `BlockKernels.qkv`."""
        return self.linear(weight, bias)

    def mlp(self, layers: Mlp, activation: Activation) -> tuple[Linear, Linear]:
        """Makes two layers, see `BlockKernels.mlp`."""
        first, second = layers
        return _PlainLinear(*first, self.dtype, ACTIVATIONS[activation]), self.linear(*second)

    def convolution(self, kernel: Kernel, *, relu: bool) -> Convolution:
        """Makes a convolution, see `Kernels.convolution`."""
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
    """The kernels for each part of a CLIP.

    Attributes:
        images: The kernels for the blocks of a ViT.
        texts: The kernels for the blocks of the text tower.
        rest: The kernels for patch embeddings and for ResNets with their pooling.
    """

    images: BlockKernels
    texts: BlockKernels
    rest: Kernels


def plain_toolbox(dtype: torch.dtype) -> Toolbox:
    """Returns kernels of plain torch for all parts."""
    kernels = PlainKernels(dtype)
    return Toolbox(kernels, kernels, kernels)
