"""Measures `hfclip embed`: from a folder of JPEG files to embeddings on the disk.

    python -m benchmarks.embedding /tmp/folder

writes the pictures. The whole is compared with its two halves alone: decoding and the model.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from benchmarks import weights
from benchmarks.encode import OPEN_CLIP, figure
from benchmarks.encode_tasks import Step
from benchmarks.measure import Case, Sample
from benchmarks.report import Highlight, Measure, Section
from benchmarks.suite import Benchmark, Options

if TYPE_CHECKING:
    from torch import Tensor

    from hfclip.embedding.options import Options as EmbedOptions

MODEL = "ViT-B/32"
WIDTH, HEIGHT = 500, 375
# Number of pictures in the collections that are embedded. In bfloat16 a processor without
# instructions for it takes long.
FEWEST, FEW, MANY = 500, 2_000, 20_000
# Distinct pictures. The other names are hard links to them.
DISTINCT = 500
BATCH = 64
_FOLDER = "collection-1"
_QUALITY = 90
# Number of pictures on which a half alone is measured, before the whole and after it.
_DECODED, _ENCODED = 7 * BATCH, 4 * BATCH
_AUTOCAST = {"float32": False, "bfloat16": True}


def hfclip(cache: str, count: str, precision: str) -> Iterator[Step]:
    """Embeds a folder as `hfclip embed` does, and measures its halves before and after."""
    from hfclip.embedding.options import Options as EmbedOptions
    from hfclip.embedding.run import embed_collection

    if precision == "bfloat16":
        _emulate()
    model = str(weights.locate("safetensors", MODEL, Path(cache)))
    chosen: Literal["fp32", "bf16"] = "bf16" if precision == "bfloat16" else "fp32"
    options = EmbedOptions(model=model, precision=chosen, device="cpu")
    paths = _paths(cache, int(count))
    halves = [_halves(options, paths)]
    yield "halves"
    with tempfile.TemporaryDirectory(dir=cache) as out:
        outcome = embed_collection([str(paths[0].parent)], Path(out) / "out", options)
    if outcome.embedded != int(count):
        raise RuntimeError(f"{outcome.embedded} of {count} pictures were embedded")
    yield "whole", outcome.rate
    halves.append(_halves(options, paths))
    decoded, encoded = (statistics.fmean(half) for half in zip(*halves, strict=True))
    yield "decoding", decoded
    yield "model", encoded
    limit = 1 / (1 / decoded + 1 / encoded)
    yield "limit", limit
    yield "share", outcome.rate / limit


def _emulate() -> None:
    """Computes in bfloat16 also on processors without instructions for it."""
    from hfclip.embedding import options
    from hfclip.fast import onednn

    for module in (options, onednn):
        setattr(module, "has_instructions", lambda _: True)  # noqa: B010  # mypy refuses the other


def open_clip(cache: str, count: str, precision: str) -> Iterator[Step]:
    """Embeds the same folder with open_clip and a DataLoader, as its users write it."""
    import numpy as np
    import open_clip as package
    import torch
    from PIL import Image

    path = str(weights.locate("safetensors", MODEL, Path(cache)))
    model, _, preprocess = package.create_model_and_transforms(
        MODEL.replace("/", "-"), pretrained=path, device="cpu", force_quick_gelu=True
    )
    model.eval()
    yield "load"

    class Pictures(torch.utils.data.Dataset["Tensor"]):
        paths = _paths(cache, int(count))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, row: int) -> "Tensor":
            return cast("Tensor", preprocess(Image.open(self.paths[row])))

    start = time.perf_counter()
    loader = torch.utils.data.DataLoader(
        Pictures(), batch_size=BATCH, num_workers=os.cpu_count() or 1
    )
    found = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=_AUTOCAST[precision]):
        for batch in loader:
            features = model.encode_image(batch).float()
            found.append(torch.nn.functional.normalize(features, dim=-1))
    with tempfile.TemporaryDirectory(dir=cache) as out:
        np.save(Path(out) / "vectors.npy", torch.cat(found).half().numpy())
    yield "whole", int(count) / (time.perf_counter() - start)


def _halves(options: "EmbedOptions", paths: list[Path]) -> tuple[float, float]:
    """Returns how many pictures a second are decoded alone and encoded alone, on all cores."""
    import torch

    from hfclip.embedding.options import load_encoder
    from hfclip.images.reading import load_batch

    loaded = load_encoder(options).optimized()
    batch = torch.randn(BATCH, 3, 224, 224)

    def decode(first: int) -> None:
        load_batch(paths[first : first + BATCH], loaded.reader.preprocess)

    def encode(_: int) -> None:
        loaded.encoder.start(batch)()

    return _rate(decode, _DECODED), _rate(encode, _ENCODED)


def _rate(work: Callable[[int], None], count: int) -> float:
    """Returns the pictures a second of work on batches, after one that is not counted."""
    work(0)
    start = time.perf_counter()
    for first in range(0, count, BATCH):
        work(first)
    return count / (time.perf_counter() - start)


def _paths(cache: str, count: int) -> list[Path]:
    return sorted((Path(cache) / _FOLDER / str(count)).iterdir())


def write(folder: Path) -> None:
    """Writes the pictures: parts of scikit-learn's photographs with noise, and links to them."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for count in (FEWEST, FEW, MANY):
        (folder / str(count)).mkdir(parents=True)
    for number in range(DISTINCT):
        whole = photographs[number % len(photographs)]
        side = float(random.uniform(0.5, 1))
        width, height = int(whole.width * side), int(whole.height * side)
        left = int(random.integers(0, whole.width - width + 1))
        top = int(random.integers(0, whole.height - height + 1))
        box = (left, top, left + width, top + height)
        part = whole.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=box)
        noisy = np.asarray(part, np.float32) + random.normal(0, 4, (HEIGHT, WIDTH, 1))
        first = folder / str(FEW) / f"{number:05}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(first, quality=_QUALITY)
        for count in (FEWEST, FEW, MANY):
            for other in range(number, count, DISTINCT):
                path = folder / str(count) / f"{other:05}.jpg"
                if path != first:
                    os.link(first, path)


HFCLIP, LOADER = "hfclip embed", f"{OPEN_CLIP} with a DataLoader"
GROUPS = {
    f"{FEW:,} pictures, float32": (FEW, "float32"),
    f"{FEWEST:,} pictures, bfloat16": (FEWEST, "bfloat16"),
    f"{MANY:,} pictures, float32": (MANY, "float32"),
}
_SMALL, _HALF, _LARGE = GROUPS


def cases(options: Options) -> list[Case]:
    """Returns a case for each engine and group; writes the inputs that do not exist."""
    weights.written(options.cache / _FOLDER, __name__)
    weights.provide("safetensors", MODEL, options.cache)
    found = []
    for group, (count, precision) in GROUPS.items():
        arguments = (str(options.cache), str(count), precision)
        found.append(Case(group, HFCLIP, f"{__name__}:hfclip", arguments))
        if count != MANY:
            found.append(Case(group, LOADER, f"{__name__}:open_clip", arguments))
    return found


_METHOD = f"""\
{MODEL} with random weights embeds a folder of JPEG files of {WIDTH}x{HEIGHT} on all cores:
decoding, preprocessing, the model, and writing. {DISTINCT} files are distinct, the others are hard
links to them. Listing the files and loading the model are not counted. Decoding alone reads and
preprocesses {_DECODED} pictures with `load_batch`; the model alone encodes {_ENCODED} pictures,
both in batches of {BATCH} on all cores, before the whole and after it in the same process; the mean
counts. On a CPU both share the cores: the limit is 1 / (1 / decoding + 1 / model). open_clip runs
with its own preprocess and a DataLoader with a worker for each core, and saves float16. bfloat16 is
emulated on processors without instructions for it. Every run is a fresh process."""


def _peak(sample: Sample) -> float:
    return sample["whole"].peak / 1e6


SECTION = Section(
    name="embed",
    title="Embed a collection",
    method=_METHOD,
    baseline=HFCLIP,
    measures=[
        Measure(
            "Pictures a second",
            "images/s",
            figure("whole"),
            {(group, LOADER): 1.5 for group in (_SMALL, _HALF)},
            more_is_better=True,
        ),
        Measure(
            "Share of the limit",
            "",
            figure("share"),
            least={(group, HFCLIP): 0.95 for group in GROUPS},
            compared=False,
        ),
        Measure("Decoding alone", "images/s", figure("decoding"), compared=False),
        Measure("The model alone", "images/s", figure("model"), compared=False),
        Measure("Peak memory", "MB", _peak),
    ],
    groups="collection",
    highlights=tuple(
        Highlight(f"Embed {group}", "Pictures a second", group, share="Share of the limit")
        for group in (_SMALL, _HALF)
    ),
)

BENCHMARK = Benchmark(SECTION, cases, rounds=1, warms_up=False)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
