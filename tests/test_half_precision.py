"""The kernels of fast_half_precision give torch's own values, dtypes and errors."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from half_precision import fast_half_precision
from torch import Tensor

# Each takes inputs with two, three or four dimensions.
LAYERS: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "linear": (F.linear, ((6, 8), (5, 8), (5,))),
    "product": (torch.matmul, ((6, 8), (8, 5))),
    "products": (torch.bmm, ((2, 6, 8), (2, 8, 5))),
    "sums of products": (torch.baddbmm, ((2, 6, 5), (2, 6, 8), (2, 8, 5))),
    "convolution": (F.conv2d, ((2, 3, 6, 6), (5, 3, 2, 2), (5,))),
    "attention": (F.scaled_dot_product_attention, ((2, 2, 6, 8), (2, 2, 6, 8), (2, 2, 6, 8))),
}


def outcome(layer: str) -> list[Tensor]:
    """Returns the output of a layer in float16 and the gradients of its inputs."""
    call, shapes = LAYERS[layer]
    torch.manual_seed(0)
    inputs = [torch.randn(shape).half().requires_grad_() for shape in shapes]
    found = call(*inputs)
    found.square().sum().backward()  # type: ignore[no-untyped-call]
    return [found.detach(), *(value.grad for value in inputs if value.grad is not None)]


@pytest.mark.parametrize("layer", LAYERS)
def test_values_and_gradients_are_those_of_torch(layer: str) -> None:
    expected = outcome(layer)
    with fast_half_precision():
        found = outcome(layer)
    assert len(found) == len(expected) == len(LAYERS[layer][1]) + 1
    torch.testing.assert_close(found, expected, rtol=4e-3, atol=4e-3)


def test_inputs_of_different_dtypes_are_still_refused() -> None:
    image, weight = torch.ones(2, 3), torch.ones(4, 3)
    with fast_half_precision():
        assert F.linear(image, weight).dtype == torch.float32
        with pytest.raises(RuntimeError, match="same dtype"):
            F.linear(image, weight.half())
        with pytest.raises(RuntimeError, match="same dtype"):
            F.linear(image.half(), weight)
