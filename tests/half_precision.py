"""Makes float16 on the CPU five times as fast.

Most CPUs have no instructions for float16, and torch multiplies float16 matrices there one number
at a time. A conversion to float32 costs little, and the CPU multiplies float32 quickly.
"""

# mypy: disable-error-code="no-untyped-call"

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor


class _Float32(NamedTuple):
    """The positions of arguments and results that are float32 even if the others are float16."""

    arguments: frozenset[int] = frozenset()
    results: frozenset[int] = frozenset()


_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
_OPERATORS = {
    "mm": _Float32(),
    "addmm": _Float32(),
    "bmm": _Float32(),
    "baddbmm": _Float32(),
    "_slow_conv2d_forward": _Float32(),
    "_slow_conv2d_backward.output_mask": _Float32(),
    _ATTENTION: _Float32(results=frozenset({1})),  # the logarithms of the sums
    f"{_ATTENTION}_backward": _Float32(arguments=frozenset({5})),
}


@contextmanager
def fast_half_precision() -> Iterator[None]:
    """Multiplies float16 matrices in float32 and rounds the results, also in the backward pass.

    The dtypes of all inputs and outputs stay as they are: only the kernels change. Operators whose
    inputs have different dtypes raise the same errors as before.
    """
    library = torch.library.Library("aten", "IMPL")
    try:
        for name, float32 in _OPERATORS.items():
            kernel = torch.library.get_kernel(f"aten::{name}", "CPU")
            through_float32 = functools.partial(_call, kernel, float32)
            library.impl(name, through_float32, "CPU", with_keyset=True, allow_override=True)
        yield
    finally:
        library._destroy()


def _call(kernel: Any, float32: _Float32, keys: Any, *arguments: Any, **options: Any) -> Any:
    """Calls a kernel of torch, in float32 if it would compute in float16."""
    numbers = [
        value
        for place, value in enumerate((*arguments, *options.values()))
        if place not in float32.arguments
        and isinstance(value, Tensor)
        and value.is_floating_point()
    ]
    if any(value.dtype != torch.float16 for value in numbers):
        return kernel.call_boxed(keys, *arguments, **options)
    wide = {name: _as_float32(value) for name, value in options.items()}
    results = kernel.call_boxed(keys, *map(_as_float32, arguments), **wide)
    if isinstance(results, Tensor):
        return results.half()
    return tuple(
        value if place in float32.results or value is None else value.half()
        for place, value in enumerate(results)
    )


def _as_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
