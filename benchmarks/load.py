"""Measures the load of a weight file and the first encoded image, on the CPU in float32.

Each engine is a task of four laps: the import of torch, the other imports, the load, and the
encoding of one image. hfclip and clip also preprocess this image. An engine imports its package
inside its task, so that no engine pays for the imports of another.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import weights
from benchmarks.measure import Case, Sample
from benchmarks.report import Highlight, Measure, Section
from benchmarks.suite import Benchmark, Options

MEGABYTE = 1e6
MODELS = ("ViT-B/32", "RN50", "ViT-L/14")


def hfclip_file(path: str, _model: str, side: str) -> Iterator[str]:
    """Loads with hfclip from a file of any format."""
    yield from _torch()
    from hfclip import load

    yield from _laps(lambda: _from_picture(*load(path, "cpu")), side)


def hfclip_name(path: str, model: str, side: str) -> Iterator[str]:
    """Loads with hfclip by the name of a release that is in the Hub cache and already verified."""
    yield from _torch()
    from huggingface_hub import constants

    from hfclip import load, releases
    from hfclip.hub import integrity

    constants.HF_HOME = path  # keeps the results of verification
    release = releases.RELEASES[model]
    (link,) = Path(path).glob(f"*/snapshots/{weights.COMMIT}/{release.hub.file}")
    digest = link.readlink().name
    # Stands in for the published file, which is not available offline.
    file = replace(release.hub, revision=weights.COMMIT, sha256=digest)
    releases.RELEASES[model] = replace(release, hub=file)
    integrity.matches(link, integrity.Digest("sha256", digest))
    yield from _laps(lambda: _from_picture(*load(model, "cpu", cache_dir=path)), side)


def clip_archive(path: str, _model: str, side: str) -> Iterator[str]:
    """Loads with clip-anytorch, which is OpenAI's code, from the archive."""
    yield from _torch()
    import clip

    yield from _laps(lambda: _from_picture(*clip.load(path, "cpu")), side)


def open_clip_file(path: str, model: str, side: str) -> Iterator[str]:
    """Loads with open_clip from safetensors, without its preprocess."""
    yield from _torch()
    import open_clip

    name = model.replace("/", "-").replace("@336px", "-336")

    def load() -> Any:
        clip = open_clip.create_model(name, pretrained=path, device="cpu", force_quick_gelu=True)
        clip.eval()
        return clip.encode_image

    yield from _laps(load, side)


def transformers_folder(path: str, _model: str, side: str) -> Iterator[str]:
    """Loads with transformers from its own folder, without its preprocess."""
    yield from _torch()
    import torch
    from transformers import CLIPModel

    def load() -> Any:
        # from_pretrained returns a model in eval mode.
        return CLIPModel.from_pretrained(path, dtype=torch.float32).get_image_features

    yield from _laps(load, side)


def _from_picture(model: Any, preprocess: Callable[[Any], Any]) -> Callable[[Any], object]:
    """Returns a function that preprocesses and encodes a picture; it ignores its argument."""
    from PIL import Image

    picture = Image.new("RGB", (640, 480), (120, 110, 100))
    return lambda _: model.encode_image(preprocess(picture)[None])


def _torch() -> Iterator[str]:
    """Imports torch as a lap of its own: no package that uses torch needs less memory."""
    import torch  # noqa: F401

    yield "torch"


def _laps(load: Callable[[], Callable[[Any], object]], side: str) -> Iterator[str]:
    import torch

    image = torch.zeros(1, 3, int(side), int(side))
    yield "import"
    encode = load()
    yield "load"
    with torch.inference_mode():
        encode(image)
    yield "encode"


class Engine(NamedTuple):
    """One engine: its title, task, package, format of weights, and whether it has ResNets."""

    title: str
    task: Callable[[str, str, str], Iterator[str]]
    package: str
    weights: str
    resnets: bool = True


HFCLIP = "hfclip, safetensors"
HFCLIP_BY_NAME = "hfclip, by name from the Hub's cache"
CLIP = "clip, archive"
OPEN_CLIP = "open_clip, safetensors"
TRANSFORMERS = "transformers, safetensors"
ENGINES = (
    Engine(HFCLIP, hfclip_file, "hfclip", "safetensors"),
    Engine(HFCLIP_BY_NAME, hfclip_name, "hfclip", "hub"),
    Engine("hfclip, archive", hfclip_file, "hfclip", "archive"),
    Engine(CLIP, clip_archive, "clip", "archive"),
    Engine(OPEN_CLIP, open_clip_file, "open_clip", "safetensors"),
    Engine(TRANSFORMERS, transformers_folder, "transformers", "transformers", resnets=False),
)


def cases(options: Options) -> list[Case]:
    """Returns a case for every engine and model; writes the weights that do not exist yet."""
    from hfclip.releases import RELEASES

    found = []
    for model in options.models or MODELS:
        config = RELEASES[model].config
        for engine in ENGINES:
            if engine.resnets or not config.is_resnet:
                # Without its package an engine reads no weights.
                find = weights.provide if find_spec(engine.package) else weights.locate
                path = str(find(engine.weights, model, options.cache))
                task = f"{__name__}:{engine.task.__name__}"
                arguments = (path, model, str(config.image_resolution))
                found.append(Case(model, engine.title, task, arguments))
    return found


def _seconds(*laps: str) -> Callable[[Sample], float]:
    return lambda sample: sum(sample[lap].seconds for lap in laps)


def _peak(lap: str) -> Callable[[Sample], float]:
    return lambda sample: sample[lap].peak / MEGABYTE


def _peak_above(lap: str) -> Callable[[Sample], float]:
    """Computes the peak memory by the end of the load, above the memory held after a lap."""
    return lambda sample: (sample["load"].peak - sample[lap].resident) / MEGABYTE


LOAD, FROM_IMPORTS = "Load", "Imports, load and first encode of one image"
PEAK, ABOVE_TORCH = (
    "Peak memory by the end of the load",
    "Peak memory by the end of the load, above the import of torch",
)
MEASURES = (
    Measure(
        LOAD,
        "s",
        _seconds("load"),
        {
            ("ViT-B/32", CLIP): 10,
            ("ViT-B/32", OPEN_CLIP): 10,
            ("ViT-L/14", CLIP): 80,
            ("ViT-L/14", OPEN_CLIP): 30,
            ("ViT-L/14", TRANSFORMERS): 5,
        },
    ),
    Measure("Load and first encode of one image", "s", _seconds("load", "encode")),
    Measure("Imports", "s", _seconds("torch", "import")),
    Measure(
        FROM_IMPORTS,
        "s",
        _seconds("torch", "import", "load", "encode"),
        {("ViT-B/32", engine): 1.5 for engine in (CLIP, OPEN_CLIP, TRANSFORMERS)},
    ),
    Measure(
        PEAK,
        "MB",
        _peak("load"),
        {("ViT-B/32", CLIP): 2, ("ViT-B/32", OPEN_CLIP): 2, ("ViT-L/14", CLIP): 5},
    ),
    Measure(
        ABOVE_TORCH,
        "MB",
        _peak_above("torch"),
        {(model, TRANSFORMERS): 1.5 for model in ("ViT-B/32", "ViT-L/14")},
    ),
    Measure("Peak memory by the end of the load, above all imports", "MB", _peak_above("import")),
    Measure("Peak memory by the end of the first encode", "MB", _peak("encode")),
)

_METHOD = """\
From a weight file to a model that can encode, on the CPU, in float32 and eval mode, with random
weights of full size. Every run is a fresh process and the engines take turns. A first round is
not counted; it brings all files into the page cache. A run is repeated for some seconds if other
programs take more than a tenth of the cores, and the least disturbed run counts. Times start
after the imports where the heading does not say otherwise. Memory is resident memory with mapped
pages of files, in millions of bytes.

hfclip maps safetensors in the Hub's cache: the system reads a page when it is first touched. This
moves part of the work from the load to the first encode, which some tables include for this reason.
A file that is named by its path was mapped until 2026-11-25. It is now read into memory, because
another program may overwrite it; runs before that date show the mapped load. hfclip and clip
also build the preprocess and prepare a picture of 640x480 for the first encode; open_clip and
transformers do not. The archive holds half precision, which every engine that reads it casts to
float32.

Every engine imports torch, so the memory of `import torch` is a floor that no engine can go
below. The target for memory compared with transformers is therefore the memory above this floor."""

_NOTES = """\
- Most of the peak memory of hfclip belongs to `import torch`: 533 of 568 MB for ViT-L/14 (AMD
  EPYC family 25, 2026-11-25). A target of two thirds of the whole peak of transformers was 540
  MB, which nearly no package that uses torch can reach.
- Of the 35 MB of hfclip above torch, 10 MB are pages that safetensors touches when it returns
  tensors, and 14 MB are the modules that hfclip imports.
- In the run of 2026-11-25 on AMD EPYC family 25, the memory of `import torch` comes from the
  benchmark `imports` on the same day. Later runs measure it in the same process."""

SECTION = Section(
    name="load",
    title="Load",
    method=_METHOD,
    baseline=HFCLIP,
    measures=MEASURES,
    notes=_NOTES,
    highlights=(
        Highlight("Import, load and encode one image, ViT-B/32", FROM_IMPORTS, "ViT-B/32"),
        Highlight("Load ViT-L/14", LOAD, "ViT-L/14"),
        Highlight("Peak memory of the load, ViT-L/14", PEAK, "ViT-L/14"),
        Highlight("Peak memory above `import torch`, ViT-L/14", ABOVE_TORCH, "ViT-L/14"),
    ),
)

BENCHMARK = Benchmark(SECTION, cases)
