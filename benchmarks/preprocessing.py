"""Measures the preprocess: from JPEG files to the tensors that the image tower takes.

    python -m benchmarks.preprocessing /tmp/folder

writes the pictures: two photographs of scikit-learn in two sizes. The larger size gets sensor
noise, which an enlarged photograph does not have.
"""

import io
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import weights
from benchmarks.measure import Case, Sample
from benchmarks.report import Highlight, Measure, Section
from benchmarks.suite import Benchmark, Options

if TYPE_CHECKING:
    from torch import Tensor

RESOLUTION = 224
# Name of the folder of pictures in the cache.
FOLDER = "pictures-1"
SMALL, LARGE = "640x480", "4000x3000"
# Number of pictures in a lap, which then takes about a second.
PICTURES = {SMALL: 200, LARGE: 8}
_QUALITY = 90
# The type decides all other settings.
_RUST_CONFIG = {"image_processor_type": "CLIPImageProcessor"}

Step = str | tuple[str, float]
Prepare = Callable[[bytes], "Tensor"]


def hfclip_exact(folder: str, size: str, model: str) -> Iterator[Step]:
    """Runs the default preprocess of hfclip."""
    yield from _hfclip(folder, size, model, "exact")


def hfclip_fast(folder: str, size: str, model: str) -> Iterator[Step]:
    """Runs the fast preprocess of hfclip."""
    yield from _hfclip(folder, size, model, "fast")


def clip(folder: str, size: str, _model: str) -> Iterator[Step]:
    """Runs OpenAI's preprocess."""
    from clip.clip import _transform

    yield from _alone(folder, size, of_image(_transform(RESOLUTION)))


def open_clip(folder: str, size: str, _model: str) -> Iterator[Step]:
    """Runs the preprocess of open_clip."""
    from open_clip.transform import image_transform

    yield from _alone(folder, size, of_image(image_transform(RESOLUTION, is_train=False)))


def transformers(folder: str, size: str, _model: str) -> Iterator[Step]:
    """Runs CLIPImageProcessor, which uses torchvision."""
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor()

    def prepare(image: Any) -> "Tensor":
        pixels: Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
        return pixels

    yield from _alone(folder, size, of_image(prepare))


def torchvision(folder: str, size: str, _model: str) -> Iterator[Step]:
    """Decodes and resizes with torchvision; the pipeline is written for this benchmark."""
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


def rust_exact(folder: str, size: str, _model: str) -> Iterator[Step]:
    """Runs hf-processors-rs as it reproduces Pillow."""
    yield from _rust(folder, size, "pil")


def rust_fast(folder: str, size: str, _model: str) -> Iterator[Step]:
    """Runs hf-processors-rs as it reproduces torchvision."""
    yield from _rust(folder, size, "torchvision")


def _rust(folder: str, size: str, backend: str) -> Iterator[Step]:
    import torch
    from hf_processors_rs import ImageProcessor

    processor = ImageProcessor.from_dict(_RUST_CONFIG, backend=backend)

    def prepare(jpeg: bytes) -> "Tensor":
        return torch.from_numpy(processor(jpeg, num_threads=1)[0])

    yield from _alone(folder, size, prepare)


def _hfclip(folder: str, size: str, model: str, mode: Any) -> Iterator[Step]:
    import hfclip

    transform = hfclip.image_transform(RESOLUTION, mode=mode)
    yield from _alone(folder, size, of_image(transform))
    from hfclip.images.reading import load_batch

    jpegs = jpegs_of(folder, size)
    load_batch(jpegs[:2], transform)
    yield "ready"
    load_batch(jpegs, transform)
    yield "batch"
    exact = [_reference()(jpeg) for jpeg in jpegs[:2]]
    close = [of_image(transform)(jpeg) for jpeg in jpegs[:2]]
    yield "difference", max(map(_levels_apart, exact, close))
    yield "cosine", min(map(partial(_cosine, hfclip.load(model, "cpu")[0]), exact, close))


def _alone(folder: str, size: str, prepare: Prepare) -> Iterator[Step]:
    """Prepares one picture after the other, in one thread."""
    import torch

    torch.set_num_threads(1)
    jpegs = jpegs_of(folder, size)
    for jpeg in jpegs[:4]:
        prepare(jpeg)
    yield "pictures", float(len(jpegs))
    for jpeg in jpegs:
        prepare(jpeg)
    yield "one by one"
    pairs = ((prepare(jpeg), _reference()(jpeg)) for jpeg in jpegs[:2])
    yield "difference", max(_levels_apart(ours, exact) for ours, exact in pairs)


def jpegs_of(folder: str, size: str) -> list[bytes]:
    """Returns the bytes of the pictures of a size, as often as a lap reads them."""
    two = [path.read_bytes() for path in sorted(Path(folder).glob(f"{size}-*.jpg"))]
    return [two[number % len(two)] for number in range(PICTURES[size])]


def of_image(transform: Callable[[Any], "Tensor"]) -> Prepare:
    """Returns a function from the bytes of a picture to what a transform makes of it."""
    from PIL import Image

    return lambda jpeg: transform(Image.open(io.BytesIO(jpeg)))


def _reference() -> Prepare:
    """Returns the same transform as OpenAI's code, built from torchvision."""
    from torchvision import transforms

    return of_image(
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
    """Returns the largest difference of a pixel, in levels of 255."""
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


EXACT, FAST, CLIP, OPEN_CLIP = "hfclip", "hfclip, fast", "clip", "open_clip"
TORCHVISION = "torchvision.io and transforms.v2"
RUST_EXACT, RUST_FAST = "hf-processors-rs, pil", "hf-processors-rs, torchvision"
ENGINES: dict[str, Callable[[str, str, str], Iterator[Step]]] = {
    EXACT: hfclip_exact,
    FAST: hfclip_fast,
    CLIP: clip,
    OPEN_CLIP: open_clip,
    "transformers": transformers,
    TORCHVISION: torchvision,
    RUST_EXACT: rust_exact,
    RUST_FAST: rust_fast,
}


def cases(options: Options) -> list[Case]:
    """Returns a case for each engine and size; writes the pictures if they do not exist."""
    folder = weights.written(options.cache / FOLDER, __name__)
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


ONE_BY_ONE, AGAINST_FAST = "One by one", "One by one, compared with the fast preprocess"
# Peers whose pixels are equal to OpenAI's.
_EXACT_PEERS = (CLIP, OPEN_CLIP, RUST_EXACT)

_NOTES = """\
- The exact preprocess must decode and resize as OpenAI's does, with Pillow and equal to the bit.
  This is 95% of the work at 640x480 and nearly all of it at 4000x3000. It saves part of the rest:
  the overhead of five transforms, and arithmetic on 150,000 numbers, which a table of 768
  replaces.
- Resizing only the part that is kept would save more, but it moves the filter by some millionths
  of a pixel, which changes single levels. Cutting between the horizontal and the vertical pass
  saves 5%, but is only right if Pillow runs the passes in this order. From version 13 on, Pillow
  resizes tall pictures vertically first.
- At 640x480 the fast preprocess spends two thirds of its time on decoding and a quarter on
  resizing. Pixels are not copied in between. Giving the decoder its bytes in one piece saves 2%,
  but modifies the image of the caller.
- The fast preprocess decodes with Pillow too. The decoders of torchvision are not faster, are
  deprecated since version 0.29, and fill missing parts of a truncated file with grey.
- On AMD Zen 5 (2026-11-25) hf-processors-rs prepared 386 pictures of 640x480 a second with its
  backend "pil", hfclip 319; at 12 megapixels 11.8 and 11.3. Of nearly exact pictures,
  hf-processors-rs prepared 445 and 12.4 a second, hfclip's fast preprocess 640 and 35."""

SECTION = Section(
    name="preprocess",
    title="Preprocess",
    method=(
        "From the bytes of a JPEG to a float32 tensor (3, 224, 224): two photographs in turn, in "
        "a fresh process, after some pictures that are not counted. One by one means in one "
        "thread; batches use `load_batch` on all cores. A difference is the largest "
        "difference of any pixel from the result of OpenAI's transform, in levels of 255. "
        "Features are computed by ViT-B/32 with random weights."
    ),
    baseline=EXACT,
    measures=[
        Measure(
            ONE_BY_ONE,
            "images/s",
            _rate("one by one"),
            {(SMALL, CLIP): 1.05, (SMALL, RUST_EXACT): 1, (LARGE, RUST_EXACT): 1},
            more_is_better=True,
        ),
        Measure(
            AGAINST_FAST,
            "images/s",
            _rate("one by one"),
            {(SMALL, CLIP): 2.4, (LARGE, CLIP): 3}
            | {(size, peer): 1 for size in PICTURES for peer in (TORCHVISION, RUST_FAST)},
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
    notes=_NOTES,
    highlights=(
        *(
            Highlight(f"Preprocess {size} JPEG, exact", ONE_BY_ONE, size, peers=_EXACT_PEERS)
            for size in PICTURES
        ),
        *(Highlight(f"Preprocess {size} JPEG, fast", AGAINST_FAST, size) for size in PICTURES),
    ),
)

BENCHMARK = Benchmark(SECTION, cases)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
