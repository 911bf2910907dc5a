"""JPEG files to the tensors that the image tower takes.

    python -m benchmarks.preprocessing /tmp/folder

writes the pictures: two photographs that come with scikit-learn, at two sizes, the larger one with
the noise of a sensor, which an enlarged photograph lacks.
"""

import io
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import weights
from benchmarks.measure import Case, Sample
from benchmarks.report import Measure, Section
from benchmarks.suite import Benchmark, Options

if TYPE_CHECKING:
    from torch import Tensor

RESOLUTION = 224
SMALL, LARGE = "640x480", "4000x3000"
# How many pictures a lap takes: a second or so.
PICTURES = {SMALL: 200, LARGE: 8}
_QUALITY = 90

Step = str | tuple[str, float]
Prepare = Callable[[bytes], "Tensor"]


def hfclip_exact(folder: str, size: str, model: str) -> Iterator[Step]:
    """The default preprocess of hfclip."""
    yield from _hfclip(folder, size, model, "exact")


def hfclip_fast(folder: str, size: str, model: str) -> Iterator[Step]:
    """The fast preprocess of hfclip."""
    yield from _hfclip(folder, size, model, "fast")


def clip(folder: str, size: str, _model: str) -> Iterator[Step]:
    """OpenAI's own."""
    from clip.clip import _transform

    yield from _alone(folder, size, _of_image(_transform(RESOLUTION)))


def open_clip(folder: str, size: str, _model: str) -> Iterator[Step]:
    """That of open_clip."""
    from open_clip.transform import image_transform

    yield from _alone(folder, size, _of_image(image_transform(RESOLUTION, is_train=False)))


def transformers(folder: str, size: str, _model: str) -> Iterator[Step]:
    """CLIPImageProcessor, which torchvision serves."""
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor()

    def prepare(image: Any) -> "Tensor":
        pixels: Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
        return pixels

    yield from _alone(folder, size, _of_image(prepare))


def torchvision(folder: str, size: str, _model: str) -> Iterator[Step]:
    """Decoding and resizing by torchvision, written for this comparison."""
    import torch
    from torchvision.io import decode_jpeg
    from torchvision.transforms import v2

    mean, std = _numbers()
    steps = v2.Compose(
        [
            v2.Resize(RESOLUTION, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(RESOLUTION),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )

    def prepare(jpeg: bytes) -> "Tensor":
        pixels: Tensor = steps(decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)))
        return pixels

    yield from _alone(folder, size, prepare)


def _hfclip(folder: str, size: str, model: str, mode: Any) -> Iterator[Step]:
    import hfclip

    transform = hfclip.image_transform(RESOLUTION, mode=mode)
    yield from _alone(folder, size, _of_image(transform))
    from hfclip.images import load_batch

    jpegs = _jpegs(folder, size)
    load_batch(jpegs[:2], transform)
    yield "ready"
    load_batch(jpegs, transform)
    yield "batch"
    exact = [_reference()(jpeg) for jpeg in jpegs[:2]]
    close = [_of_image(transform)(jpeg) for jpeg in jpegs[:2]]
    yield "difference", max(map(_levels_apart, exact, close))
    yield "cosine", min(map(partial(_cosine, hfclip.load(model, "cpu")[0]), exact, close))


def _alone(folder: str, size: str, prepare: Prepare) -> Iterator[Step]:
    """One after the other, in one thread."""
    import torch

    torch.set_num_threads(1)
    jpegs = _jpegs(folder, size)
    for jpeg in jpegs[:4]:
        prepare(jpeg)
    yield "pictures", float(len(jpegs))
    for jpeg in jpegs:
        prepare(jpeg)
    yield "one by one"
    pairs = ((prepare(jpeg), _reference()(jpeg)) for jpeg in jpegs[:2])
    yield "difference", max(_levels_apart(ours, exact) for ours, exact in pairs)


def _jpegs(folder: str, size: str) -> list[bytes]:
    two = [path.read_bytes() for path in sorted(Path(folder).glob(f"{size}-*.jpg"))]
    return [two[number % len(two)] for number in range(PICTURES[size])]


def _of_image(transform: Callable[[Any], "Tensor"]) -> Prepare:
    from PIL import Image

    return lambda jpeg: transform(Image.open(io.BytesIO(jpeg)))


def _reference() -> Prepare:
    """What OpenAI's code does, in torchvision's words."""
    from torchvision import transforms

    return _of_image(
        transforms.Compose(
            [
                transforms.Resize(RESOLUTION, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(RESOLUTION),
                lambda image: image.convert("RGB"),
                transforms.ToTensor(),
                transforms.Normalize(*_numbers()),
            ]
        )
    )


def _numbers() -> tuple[Any, Any]:
    from hfclip.config import OPENAI_MEAN, OPENAI_STD

    return OPENAI_MEAN, OPENAI_STD


def _levels_apart(one: "Tensor", other: "Tensor") -> float:
    """The largest difference of a pixel, in levels of 255."""
    import torch

    apart = (one - other).abs() * torch.tensor(_numbers()[1])[:, None, None] * 255
    return round(apart.max().item(), 3)


def _cosine(model: Any, one: "Tensor", other: "Tensor") -> float:
    import torch

    with torch.inference_mode():
        features = model.encode_image(torch.stack([one, other]))
    return torch.cosine_similarity(features[0], features[1], dim=0).item()


def write(folder: Path) -> None:
    """Writes the pictures."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number, pixels in enumerate(load_sample_images().images):
        photograph = Image.fromarray(pixels)
        small = photograph.resize((640, 480), Image.Resampling.LANCZOS)
        small.save(folder / f"{SMALL}-{number}.jpg", quality=_QUALITY)
        large = np.asarray(photograph.resize((4000, 3000), Image.Resampling.BICUBIC), np.float32)
        noisy = large + random.normal(0, 6, (*large.shape[:2], 1))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
            folder / f"{LARGE}-{number}.jpg", quality=_QUALITY
        )


EXACT, FAST, CLIP = "hfclip", "hfclip, fast", "clip"
ENGINES: dict[str, Callable[[str, str, str], Iterator[Step]]] = {
    EXACT: hfclip_exact,
    FAST: hfclip_fast,
    CLIP: clip,
    "open_clip": open_clip,
    "transformers": transformers,
    "torchvision.io and transforms.v2": torchvision,
}


def cases(options: Options) -> list[Case]:
    """Every engine with the same pictures, which are written first."""
    folder = weights.written(options.cache / "pictures-1", __name__)
    model = weights.provide("safetensors", "ViT-B/32", options.cache)
    return [
        Case(size, engine, f"{__name__}:{task.__name__}", (str(folder), size, str(model)))
        for size in PICTURES
        for engine, task in ENGINES.items()
    ]


def _rate(lap: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample["pictures"].found / sample[lap].seconds if lap in sample else None


def _figure(name: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample[name].found if name in sample else None


SECTION = Section(
    name="preprocess",
    title="Preprocess",
    method=(
        "From the bytes of a JPEG to a float32 tensor (3, 224, 224): two photographs in turn, in "
        "a fresh process, after a first use. One by one is in one thread on one core; the "
        "batches come from `hfclip.images.load_batch` on all cores. Differences are the largest "
        "of any pixel from what OpenAI's transform gives, in levels of 255. Features are those of "
        "ViT-B/32 with random weights."
    ),
    baseline=EXACT,
    measures=[
        Measure(
            "One by one",
            "images/s",
            _rate("one by one"),
            {(SMALL, CLIP): 1.05},
            more_is_better=True,
        ),
        Measure(
            "One by one, against the fast preprocess",
            "images/s",
            _rate("one by one"),
            {(SMALL, CLIP): 2.4, (LARGE, CLIP): 3},
            baseline=FAST,
            more_is_better=True,
        ),
        Measure("In a batch, on all cores", "images/s", _rate("batch"), more_is_better=True),
        Measure(
            "Largest difference of a pixel from clip's",
            "levels",
            _figure("difference"),
            most={(SMALL, EXACT): 0, (LARGE, EXACT): 0, (SMALL, FAST): 1, (LARGE, FAST): 3},
            compared=False,
        ),
        Measure(
            "Smallest cosine of features to the exact ones",
            "",
            _figure("cosine"),
            least={(SMALL, FAST): 0.999, (LARGE, FAST): 0.999},
            compared=False,
        ),
    ],
    groups="JPEG",
    notes=(
        "The exact preprocess has to decode and to resize as OpenAI's does, by Pillow and to the "
        "bit; that is nineteen parts in twenty of the work at 640x480 and nearly all of it at "
        "4000x3000. What it saves is the rest: the overhead of five transforms, and arithmetic "
        "on 150,000 numbers in place of a table of 768. To resize the middle alone would save "
        "more, but moves the filter by some millionths of a pixel, and single levels with it. To "
        "resize across, cut, and then resize down saves one part in twenty, but is right only "
        "where Pillow goes in that order: from version 13 on it goes down first with tall "
        "pictures.\n"
        "\n"
        "At 640x480 the fast preprocess decodes for two thirds of its time and resizes for a "
        "quarter; pixels are no longer copied in between. To hand the decoder its bytes in one "
        "piece saves one part in fifty, but means to change the image that was given.\n"
        "\n"
        "The fast preprocess decodes by Pillow too: torchvision's decoders, which are no faster, "
        "are deprecated since 0.29 and fill up in grey what a truncated file lacks."
    ),
)

BENCHMARK = Benchmark(SECTION, cases)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
