"""From a weight file on disk to a model that has encoded its first image, on the CPU in float32.

Each engine is a task of three laps: its imports, the load, the encoding of one image, which those
that were asked for a preprocess prepare too. An engine imports its own package inside its task and
this module imports none, so that no engine pays for another's imports.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import weights
from benchmarks.measure import Case, Sample
from benchmarks.report import Measure, Section
from benchmarks.suite import Benchmark, Options

MEGABYTE = 1e6
MODELS = ("ViT-B/32", "RN50", "ViT-L/14")


def hfclip_file(path: str, _model: str, side: str) -> Iterator[str]:
    """hfclip, from whatever kind of file it is given."""
    from hfclip import load

    yield from _laps(lambda: _from_picture(*load(path, "cpu")), side)


def hfclip_name(path: str, model: str, side: str) -> Iterator[str]:
    """hfclip, by the name of a release that the Hub's cache holds, verified before."""
    from huggingface_hub import constants

    from hfclip import integrity, load, releases

    constants.HF_HOME = path  # where verdicts are kept
    release = releases.RELEASES[model]
    (link,) = Path(path).glob(f"*/snapshots/{weights.COMMIT}/{release.hub.file}")
    digest = link.readlink().name
    # Stands in for the published file, whose numbers cannot be had here.
    file = replace(release.hub, revision=weights.COMMIT, sha256=digest)
    releases.RELEASES[model] = replace(release, hub=file)
    integrity.matches(link, integrity.Digest("sha256", digest))
    yield from _laps(lambda: _from_picture(*load(model, "cpu", cache_dir=path)), side)


def clip_archive(path: str, _model: str, side: str) -> Iterator[str]:
    """clip-anytorch, which is OpenAI's code, from the archive."""
    import clip

    yield from _laps(lambda: _from_picture(*clip.load(path, "cpu")), side)


def open_clip_file(path: str, model: str, side: str) -> Iterator[str]:
    """open_clip, from safetensors under its own names; without its preprocess."""
    import open_clip

    name = model.replace("/", "-").replace("@336px", "-336")

    def load() -> Any:
        clip = open_clip.create_model(name, pretrained=path, device="cpu", force_quick_gelu=True)
        clip.eval()
        return clip.encode_image

    yield from _laps(load, side)


def transformers_folder(path: str, _model: str, side: str) -> Iterator[str]:
    """transformers, from its own folder; without its preprocess."""
    import torch
    from transformers import CLIPModel

    def load() -> Any:
        # from_pretrained gives eval mode.
        return CLIPModel.from_pretrained(path, dtype=torch.float32).get_image_features

    yield from _laps(load, side)


def _from_picture(model: Any, preprocess: Callable[[Any], Any]) -> Callable[[Any], object]:
    """Encodes a picture that it prepares, in place of the tensor that it is given."""
    from PIL import Image

    picture = Image.new("RGB", (640, 480), (120, 110, 100))
    return lambda _: model.encode_image(preprocess(picture)[None])


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
    """A row: its title, its task, the package it needs, what it reads, whether it has ResNets."""

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
    """Every engine with every model it can read; writes the weights that are not there yet."""
    from hfclip.releases import RELEASES

    found = []
    for model in options.models or MODELS:
        config = RELEASES[model].config
        for engine in ENGINES:
            if engine.resnets or not config.is_resnet:
                # Without its package an engine does not get as far as reading.
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


def _own_memory(sample: Sample) -> float:
    return (sample["load"].peak - sample["import"].resident) / MEGABYTE


MEASURES = (
    Measure(
        "Load",
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
    Measure("Imports", "s", _seconds("import")),
    Measure(
        "Imports, load and first encode of one image",
        "s",
        _seconds("import", "load", "encode"),
        {("ViT-B/32", engine): 1.5 for engine in (CLIP, OPEN_CLIP, TRANSFORMERS)},
    ),
    Measure(
        "Peak memory by the end of the load",
        "MB",
        _peak("load"),
        {
            ("ViT-B/32", CLIP): 2,
            ("ViT-B/32", OPEN_CLIP): 2,
            ("ViT-L/14", CLIP): 5,
            ("ViT-L/14", TRANSFORMERS): 1.5,
        },
    ),
    Measure("Peak memory of the load, above what the imports left", "MB", _own_memory),
    Measure("Peak memory by the end of the first encode", "MB", _peak("encode")),
)

SECTION = Section(
    name="load",
    title="Load",
    method=(
        "From a weight file to a model that can encode, on the CPU, in float32 and eval mode; "
        "random weights of full size. Every run is a fresh process; the engines take turns, and "
        "a first round that is not counted brings everything into the page cache. A run during "
        "which other programs took more than a tenth of the cores is repeated while patience "
        "lasts, and the least disturbed counts. Seconds are counted after the imports where "
        "nothing else is said. Memory is what is resident, mapped pages of files included, in "
        "millions of bytes.\n"
        "\n"
        "hfclip maps safetensors: a page is read when it is first touched, so part of the work "
        "moves from the load into the first encode. The tables that include the first encode "
        "count it. hfclip and clip also build the preprocess, and prepare a picture of 640x480 "
        "for the first encode; open_clip and transformers are asked for neither. The archive "
        "holds half precision, which every engine that reads it turns into float32."
    ),
    baseline=HFCLIP,
    measures=MEASURES,
    notes=(
        "Peak memory by the end of the load is for the most part that of `import torch`, which "
        "stands alone among the imports above. Where two thirds of transformers' peak are less "
        "than that, no package that uses torch can reach them; what hfclip adds to its imports is "
        "in the table below it. On 2026-11-25 torch alone took 533 MB and two thirds were 540. Of "
        "the 35 MB above torch, 10 are pages that safetensors touches in handing out tensors, and "
        "14 the modules of hfclip's imports."
    ),
)

BENCHMARK = Benchmark(SECTION, cases)
