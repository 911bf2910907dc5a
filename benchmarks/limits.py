"""What the machine can do at most: matrix products, memory, hashing, page faults.

The products have the shapes of ViT-B/32 with a batch of 16: the tokens of the images, the width
and the width within an MLP. Each is measured as the best of some repetitions: a limit is what was
reached once.
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
# Of numbers (rows, width) and weights (columns, width), what multiplies them once.
Make = Callable[["Tensor", "Tensor"], Callable[[], object]]


def linear_float32() -> Iterator[Step]:
    """`F.linear` in float32, which is the MKL's."""
    yield from _linear("float32")


def linear_bfloat16() -> Iterator[Step]:
    """`F.linear` in bfloat16, which is oneDNN's."""
    yield from _linear("bfloat16")


def packed_float32() -> Iterator[Step]:
    """Through oneDNN in float32, with weights laid out for it once."""
    yield from _packed("float32")


def packed_bfloat16() -> Iterator[Step]:
    """Through oneDNN in bfloat16, with weights laid out for it once."""
    yield from _packed("bfloat16")


def packed_int8() -> Iterator[Step]:
    """Through oneDNN in int8 with int32 sums and float32 results, weights laid out once."""
    yield from _packed("int8")


def memory_read() -> Iterator[Step]:
    """One thread adds up memory that is there."""
    import numpy as np

    data = np.ones(MEGABYTES * 125_000)
    yield "speed", MEGABYTES / 1e3 / _best(data.sum)


def memory_copy() -> Iterator[Step]:
    """One thread copies between places that are there; what is read counts, not what is written."""
    import numpy as np

    data = np.ones(MEGABYTES * 125_000)
    other = np.empty_like(data)
    other.fill(0)
    yield "speed", MEGABYTES / 1e3 / _best(lambda: np.copyto(other, data))


def sha256() -> Iterator[Step]:
    """One thread hashes what is in memory: what a verified download costs at least."""
    import hashlib

    data = bytes(MEGABYTES * 1_000_000)
    yield "speed", MEGABYTES / 1e3 / _best(lambda: hashlib.sha256(data), 3)


def upcast_touched() -> Iterator[Step]:
    """Half to single precision, into memory that was touched before."""
    import torch

    half, single = torch.ones(_NUMBERS, dtype=torch.float16), torch.ones(_NUMBERS)
    yield "speed", 2 * _NUMBERS / 1e9 / _best(lambda: single.copy_(half))


def upcast_fresh() -> Iterator[Step]:
    """Half to single precision, into memory that the system gives page by page meanwhile."""
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
    """The first of `SHAPES` in a precision, ready to run, and the operations that it takes."""
    import torch

    given, make = _PACKED[precision]
    return _product(SHAPES[0], getattr(torch, given), make)


def _in_floats(x: "Tensor", weight: "Tensor") -> Callable[[], object]:
    import torch

    reorder = torch.ops.mkldnn._reorder_linear_weight  # noqa: SLF001  # none is public
    try:
        packed = reorder(weight)
    except RuntimeError as error:  # in a type that this processor has no instructions for
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


# A precision's name, the type that numbers are given in, and what makes a product of them.
_PACKED: dict[str, tuple[str, Make]] = {
    "float32": ("float32", _in_floats),
    "bfloat16": ("bfloat16", _in_floats),
    "int8": ("float32", _in_integers),
}


def _products(dtype: Any, make: Make) -> Iterator[Step]:
    """Billions of operations a second for each shape."""
    import torch

    with torch.inference_mode():
        for shape in SHAPES:
            product, operations = _product(shape, dtype, make)
            yield _name(shape), operations / 1e9 / _best(product)


def _product(shape: Sequence[int], dtype: Any, make: Make) -> tuple[Callable[[], object], float]:
    """One of random numbers, ready to run, and its operations: two for each term."""
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
    """The seconds that something takes, once."""
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
    """Each limit in a process of its own."""
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
        "What the hardware gives at most, by the best of some repetitions in each fresh process. "
        "The products have the shapes of ViT-B/32 with a batch of 16; a multiplication and an "
        "addition count two. The upcasts are counted in bytes read and use all cores."
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
