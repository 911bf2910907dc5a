"""Measures what each optimization that costs a reader time gains for the user.

Each technique runs as it is and turned off. A technique that gains less than 3 % of what its user
waits for is removed from hfclip.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from benchmarks import preprocessing, weights
from benchmarks.measure import Case, Sample
from benchmarks.report import Measure, Section
from benchmarks.suite import Benchmark, Options

MODEL = "ViT-B/32"
ON, OFF = "hfclip", "turned off"
# Smallest gain for which a technique is worth its code.
LEAST = 1.03


class Technique(NamedTuple):
    """One technique: its name, what replaces it, the user's work, and the work's argument.

    `target` is the object of hfclip that `replacement` stands in for, as `unittest.mock` takes it.
    """

    name: str
    target: str
    replacement: Callable[[], object]
    work: str
    argument: str = ""


def _compose_at_once() -> object:
    from hfclip.images.preprocess import image_transform

    def build(*arguments: Any, **options: Any) -> object:
        compose = image_transform(*arguments, **options)
        _ = compose.transforms  # imports torchvision and builds the Compose
        return compose

    return build


def _plain_kernels() -> object:
    import torch

    from hfclip.fast.kernels import plain_toolbox

    return lambda _precision, _device: plain_toolbox(torch.float32)


_SMALL, _LARGE = preprocessing.SMALL, preprocessing.LARGE
_DRAWS = "hfclip.network.initialization._DRAWS"
_MEMORY = "hfclip.images.exact.keep_freed_memory"
_ARROW = "hfclip.images.fast.lent_pixels"


def _nothing() -> object:
    return lambda *_: None


TECHNIQUES = (
    Technique(
        "torchvision imported when needed: import, load, encode one image",
        "hfclip.loading.image_transform",
        _compose_at_once,
        "answered",
    ),
    Technique(
        "initialisation skipped: load", "hfclip.network.initialization._DRAWS", frozenset, "loaded"
    ),
    Technique(f"freed memory kept: exact, {_SMALL}", _MEMORY, _nothing, "exact", _SMALL),
    Technique(f"freed memory kept: exact, {_LARGE}", _MEMORY, _nothing, "exact", _LARGE),
    Technique(f"pixels through Arrow: fast, {_SMALL}", _ARROW, _nothing, "fast", _SMALL),
    Technique(f"pixels through Arrow: fast, {_LARGE}", _ARROW, _nothing, "fast", _LARGE),
    Technique(
        "oneDNN's operators: encode 16 images",
        "hfclip.fast.onednn.toolbox",
        _plain_kernels,
        "encoded",
    ),
)
_BY_NAME = {technique.name: technique for technique in TECHNIQUES}


def with_technique(name: str, cache: str) -> Iterator[str]:
    """Does a technique's work as hfclip does it."""
    technique = _BY_NAME[name]
    yield from _WORKS[technique.work](Path(cache), technique)


def without_technique(name: str, cache: str) -> Iterator[str]:
    """Does a technique's work with the technique turned off."""
    technique = _BY_NAME[name]
    with patch(technique.target, technique.replacement()):
        yield from _WORKS[technique.work](Path(cache), technique)


def _answered(cache: Path, _: Technique) -> Iterator[str]:
    """Imports hfclip, loads a model and encodes one picture: what a first answer needs."""
    from PIL import Image

    from hfclip import load

    model, preprocess = load(str(_weights(cache)), "cpu")
    model.encode_image(preprocess(Image.new("RGB", (640, 480)))[None])
    yield "work"


def _loaded(cache: Path, _: Technique) -> Iterator[str]:
    """Loads a model after the imports."""
    import torch

    from hfclip import load

    torch.zeros(1)
    yield "ready"
    load(str(_weights(cache)), "cpu")
    yield "work"


def _prepared(cache: Path, technique: Technique) -> Iterator[str]:
    """Prepares photographs one after the other in one thread, as often as time allows."""
    import torch

    import hfclip

    torch.set_num_threads(1)
    mode: Any = technique.work
    transform = hfclip.image_transform(preprocessing.RESOLUTION, mode=mode)
    read = preprocessing.of_image(transform)
    jpegs = preprocessing.jpegs_of(str(_pictures(cache)), technique.argument)
    read(jpegs[0])
    yield "ready"
    for jpeg in jpegs:
        read(jpeg)
    yield "work"


def _encoded(cache: Path, _: Technique) -> Iterator[str]:
    """Encodes a batch of 16 images five times with `hfclip.optimize` in float32."""
    import torch

    from hfclip import load, optimize

    fast = optimize(load(str(_weights(cache)), "cpu")[0])
    images = torch.randn(16, 3, 224, 224)
    fast.encode_image(images)
    yield "ready"
    for _repeat in range(5):
        fast.encode_image(images)
    yield "work"


_WORKS: dict[str, Callable[[Path, Technique], Iterator[str]]] = {
    "answered": _answered,
    "loaded": _loaded,
    "exact": _prepared,
    "fast": _prepared,
    "encoded": _encoded,
}


def _weights(cache: Path) -> Path:
    return weights.locate("safetensors", MODEL, cache)


def _pictures(cache: Path) -> Path:
    return cache / preprocessing.FOLDER


def cases(options: Options) -> list[Case]:
    """Returns two cases for each technique; writes the weights and pictures that they read."""
    weights.provide("safetensors", MODEL, options.cache)
    weights.written(_pictures(options.cache), preprocessing.__name__)
    tasks = {ON: with_technique, OFF: without_technique}
    return [
        Case(name, title, f"{__name__}:{task.__name__}", (name, str(options.cache)))
        for name in _BY_NAME
        for title, task in tasks.items()
    ]


def _seconds(sample: Sample) -> float:
    return sample["work"].seconds


_NOTES = """\
- Keeping freed memory saves about 600 page faults a picture of 640x480. In five pairs of processes
  of 150 pictures the time without it was 9 to 31 % longer (Intel Xeon 2.5 GHz, 2026-11-27). In some
  processes another block of memory raises the allocator's threshold by chance. Turned off then
  costs nothing, so the rounds of this benchmark disagree.
- The operators of oneDNN gain most where torch multiplies float32 with MKL on an AMD processor:
  see "Encode images". On Intel they gain mostly in bfloat16 and int8.
- The limit on the client's waiting time is not measured here. Without it, a Hub that does not
  answer keeps the user waiting for up to six minutes; with it, for at most ten seconds."""

SECTION = Section(
    name="gains",
    title="What each optimization gains",
    method=(
        "The work of a user with hfclip as it is, and with one technique turned off, each in a "
        f"fresh process. The model is {MODEL} with random weights; pictures are prepared in one "
        "thread. A technique stays in hfclip if its work takes at least 3 % longer without it."
    ),
    baseline=ON,
    measures=[
        Measure("Time", "s", _seconds, {(name, OFF): LEAST for name in _BY_NAME}),
    ],
    groups="technique: work",
    notes=_NOTES,
)

BENCHMARK = Benchmark(SECTION, cases, rounds=5)
