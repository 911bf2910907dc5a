"""Measures the limits of the machine: matrix products, memory, hashing and page faults.

The products have the shapes of ViT-B/32 with a batch of 16: tokens of all images, width and width
of the MLP. A limit is the best of several repetitions.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.machine import cores
from benchmarks.measure import Case, Sample
from benchmarks.report import Measure, Section
from benchmarks.suite import Benchmark, Options

if TYPE_CHECKING:
    from torch import Tensor

SHAPES = ((800, 768, 3072), (800, 3072, 768), (50, 768, 3072), (2048, 2048, 2048))
MEGABYTES = 256
_REPETITIONS = 12
_NUMBERS = 2**24

Step = tuple[str, float]
# Takes numbers (rows, width) and weights (columns, width); returns a function that multiplies them.
Make = Callable[["Tensor", "Tensor"], Callable[[], object]]


def linear_float32() -> Iterator[Step]:
    """Measures `F.linear` in float32, which calls MKL."""
    yield from _linear("float32")


def linear_bfloat16() -> Iterator[Step]:
    """Measures `F.linear` in bfloat16, which calls oneDNN."""
    yield from _linear("bfloat16")


def packed_float32() -> Iterator[Step]:
    """Measures oneDNN in float32 with weights that are packed once."""
    yield from _packed("float32")


def packed_bfloat16() -> Iterator[Step]:
    """Measures oneDNN in bfloat16 with weights that are packed once."""
    yield from _packed("bfloat16")


def packed_int8() -> Iterator[Step]:
    """Measures oneDNN in int8 with int32 sums, float32 results and weights that are packed once."""
    yield from _packed("int8")


def memory_read() -> Iterator[Step]:
    """Sums memory that was touched before, in one thread."""
    import numpy as np

    data = np.ones(MEGABYTES * 125_000)
    yield "speed", MEGABYTES / 1e3 / _best(data.sum)


def memory_copy() -> Iterator[Step]:
    """Copies memory that was touched before, in one thread; counts the bytes read."""
    import numpy as np

    data = np.ones(MEGABYTES * 125_000)
    other = np.empty_like(data)
    other.fill(0)
    yield "speed", MEGABYTES / 1e3 / _best(lambda: np.copyto(other, data))


def sha256() -> Iterator[Step]:
    """Hashes memory in one thread, which is the least cost of a verified download."""
    import hashlib

    data = bytes(MEGABYTES * 1_000_000)
    yield "speed", MEGABYTES / 1e3 / _best(lambda: hashlib.sha256(data), 3)


def upcast_touched() -> Iterator[Step]:
    """Casts half to single precision, into memory that was touched before."""
    import torch

    half, single = torch.ones(_NUMBERS, dtype=torch.float16), torch.ones(_NUMBERS)
    yield "speed", 2 * _NUMBERS / 1e9 / _best(lambda: single.copy_(half))


def upcast_fresh() -> Iterator[Step]:
    """Casts half to single precision, into fresh memory, which causes page faults."""
    import torch

    half = torch.ones(_NUMBERS, dtype=torch.float16)
    yield "speed", 2 * _NUMBERS / 1e9 / _best(half.float)


def _linear(dtype: str) -> Iterator[Step]:
    import torch

    linear = torch.nn.functional.linear
    yield from _products(getattr(torch, dtype), lambda x, weight: lambda: linear(x, weight))


def _packed(precision: str) -> Iterator[Step]:
    import torch

    given, make = _PACKED[precision]
    yield from _products(getattr(torch, given), make)


def packed_product(precision: str) -> tuple[Callable[[], object], float]:
    """Returns the product of the first of `SHAPES` and the number of its operations."""
    import torch

    given, make = _PACKED[precision]
    return _product(SHAPES[0], getattr(torch, given), make)


def _in_floats(x: "Tensor", weight: "Tensor") -> Callable[[], object]:
    import torch

    reorder = torch.ops.mkldnn._reorder_linear_weight  # noqa: SLF001  # there is no public one
    try:
        packed = reorder(weight)
    except RuntimeError as error:  # the processor has no instructions for this type
        raise NotImplementedError(str(error)) from error
    linear = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
    return lambda: linear(x, packed, None, "none", [], "")


def _in_integers(x: "Tensor", weight: "Tensor") -> Callable[[], object]:
    import torch

    quantized = (weight * 20).clamp(-127, 127).to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(quantized, None)
    scales = torch.full((len(weight),), 0.05)
    zeros = torch.zeros(len(weight), dtype=torch.int32)
    pixels = (x * 20 + 128).clamp(0, 255).to(torch.uint8)
    tail: tuple[Any, ...] = (None, 1.0, 0, torch.float32, "none", [], "")
    linear = torch.ops.onednn.qlinear_pointwise
    return lambda: linear(pixels, 0.05, 128, packed, scales, zeros, *tail)


# By precision: the type of the inputs, and the function that makes the product.
_PACKED: dict[str, tuple[str, Make]] = {
    "float32": ("float32", _in_floats),
    "bfloat16": ("bfloat16", _in_floats),
    "int8": ("float32", _in_integers),
}


def _products(dtype: Any, make: Make) -> Iterator[Step]:
    """Yields billions of operations a second for each shape."""
    import torch

    with torch.inference_mode():
        for shape in SHAPES:
            product, operations = _product(shape, dtype, make)
            yield _name(shape), operations / 1e9 / _best(product)


def _product(shape: Sequence[int], dtype: Any, make: Make) -> tuple[Callable[[], object], float]:
    """Returns a product of random numbers and the number of its operations, two for each term."""
    import torch

    rows, width, columns = shape
    x, weight = torch.randn(rows, width).to(dtype), torch.randn(columns, width).to(dtype)
    return make(x, weight), 2.0 * rows * width * columns


def _name(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _best(do: Callable[[], object], repetitions: int = _REPETITIONS) -> float:
    do()
    return min(elapsed(do) for _ in range(repetitions))


def elapsed(do: Callable[[], object]) -> float:
    """Returns the seconds that one call takes."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


LINEAR = "F.linear, float32 (MKL)"
PRODUCTS: dict[str, Callable[[], Iterator[Step]]] = {
    LINEAR: linear_float32,
    "oneDNN packed, float32": packed_float32,
    "F.linear, bfloat16 (oneDNN)": linear_bfloat16,
    "oneDNN packed, bfloat16": packed_bfloat16,
    "oneDNN packed, int8": packed_int8,
}
SPEEDS: dict[str, Callable[[], Iterator[Step]]] = {
    "read memory": memory_read,
    "copy memory": memory_copy,
    "SHA-256": sha256,
    "float16 to float32, touched memory": upcast_touched,
    "float16 to float32, fresh memory": upcast_fresh,
}


def cases(_options: Options) -> list[Case]:
    """Returns a case for each limit."""
    groups = {f"{cores()} threads": PRODUCTS, "1 thread": SPEEDS}
    return [
        Case(group, engine, f"{__name__}:{task.__name__}")
        for group, tasks in groups.items()
        for engine, task in tasks.items()
    ]


def _figure(name: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample[name].figure if name in sample else None


SECTION = Section(
    name="machine",
    title="The machine",
    method=(
        "Limits of the hardware: the best of several repetitions, each limit in a fresh process. "
        "The products have the shapes of ViT-B/32 with a batch of 16; a multiplication and an "
        "addition count as two operations. The casts from float16 to float32 use all cores and "
        "count the bytes read."
    ),
    baseline=LINEAR,
    measures=[
        *(
            Measure(f"Matrix product {_name(shape)}", "GFLOP/s", _figure(_name(shape)), {})
            for shape in SHAPES
        ),
        Measure("Memory and hashing", "GB/s", _figure("speed"), compared=False),
    ],
    groups="on",
)

BENCHMARK = Benchmark(SECTION, cases)
