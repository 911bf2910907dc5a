"""Measures the encoding of 256 captions with the text tower of ViT-B/32, on the CPU.

The same tokenizer makes the ids for all engines before the measured time. clip and open_clip get
captions that are padded to 77 ids, as their tokenizers return them. transformers gets captions
that are padded to the longest, as its tokenizer returns them on request.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import encode, encode_tasks, graphs, tokenization, weights
from benchmarks.encode import CLIP, OPEN_CLIP, TRANSFORMERS, figure, optimized
from benchmarks.encode_tasks import EVERY, Step
from benchmarks.measure import Case
from benchmarks.report import Highlight, Measure, Section
from benchmarks.suite import Benchmark, Options
from benchmarks.weights import written

if TYPE_CHECKING:
    from torch import Tensor

    from hfclip.fast.kernels import Precision

CAPTIONS = 256
MODEL = "ViT-B/32"
GROUP = f"{CAPTIONS} captions"
_FOLDER = "captions-1"


def clip(cache: str) -> Iterator[Step]:
    """Encodes with OpenAI's code and captions padded to 77."""
    import clip as package

    path = weights.locate("archive", MODEL, Path(cache))
    yield from _laps(package.load(str(path), "cpu")[0].encode_text, EVERY, cache, "max_length")


def open_clip(cache: str) -> Iterator[Step]:
    """Encodes with open_clip and captions padded to 77."""
    import open_clip as package

    path = str(weights.locate("safetensors", MODEL, Path(cache)))
    name = MODEL.replace("/", "-")
    tower = package.create_model(name, pretrained=path, device="cpu", force_quick_gelu=True)
    yield from _laps(tower.eval().encode_text, EVERY, cache, "max_length")


def transformers(cache: str) -> Iterator[Step]:
    """Encodes with transformers, torch's fused attention and captions padded to the longest."""
    tower = encode_tasks.transformers_model(cache, MODEL)

    def features(ids: "Tensor") -> Any:
        return tower.get_text_features(input_ids=ids).pooler_output

    yield from _laps(features, EVERY, cache, "longest")


def hfclip(cache: str) -> Iterator[Step]:
    """Encodes with the model that hfclip loads and captions padded to the longest."""
    model = encode_tasks.hfclip_model(cache, MODEL)
    yield from _laps(model.encode_text, EVERY, cache, "longest")


def optimized_float32(cache: str) -> Iterator[Step]:
    """Encodes with `hfclip.optimize` in float32."""
    yield from _optimized(cache, "float32")


def optimized_bfloat16(cache: str) -> Iterator[Step]:
    """Encodes with `hfclip.optimize` in bfloat16."""
    yield from _optimized(cache, "bfloat16")


def optimized_int8(cache: str) -> Iterator[Step]:
    """Encodes with `hfclip.optimize` in int8."""
    yield from _optimized(cache, "int8")


def _optimized(cache: str, precision: "Precision") -> Iterator[Step]:
    from hfclip import optimize

    fast = optimize(encode_tasks.hfclip_model(cache, MODEL), precision)
    yield from _laps(fast.encode_text, precision, cache, "max_length")


def _laps(
    features: Callable[["Tensor"], Any], precision: str, cache: str, padding: Any
) -> Iterator[Step]:
    """Yields captions a second, then the difference from the model of hfclip."""
    import torch

    from hfclip import tokenize

    file = Path(cache) / _FOLDER / "captions.txt"
    texts = file.read_text(encoding="utf-8").splitlines()[:CAPTIONS]
    ids = tokenize(texts, truncate=True, padding=padding).long()
    yield "load"
    with torch.inference_mode():
        seconds, found = encode_tasks.timed(features, ids)
        yield precision, CAPTIONS / seconds
        few = slice(None, None, CAPTIONS // graphs.IMAGES)
        expected = encode_tasks.hfclip_model(cache, MODEL).encode_text(ids[few])
        yield from encode_tasks.differences(found[few], expected)


# Title, task, package and inputs of each engine.
ENGINES: tuple[tuple[str, Callable[[str], Iterator[Step]], str, tuple[str, ...]], ...] = (
    (optimized("float32"), optimized_float32, "hfclip", ("safetensors",)),
    (optimized("bfloat16"), optimized_bfloat16, "hfclip", ("safetensors",)),
    (optimized("int8"), optimized_int8, "hfclip", ("safetensors",)),
    ("hfclip", hfclip, "hfclip", ("safetensors",)),
    (CLIP, clip, "clip", ("archive", "safetensors")),
    (OPEN_CLIP, open_clip, "open_clip", ("safetensors",)),
    (TRANSFORMERS, transformers, "transformers", ("transformers", "safetensors")),
)


def cases(options: Options) -> list[Case]:
    """Returns a case for each engine; writes the inputs that do not exist."""
    written(options.cache / _FOLDER, tokenization.__name__)
    found = []
    for title, task, package, reads in ENGINES:
        if find_spec(package):
            encode.provide(reads, MODEL, options.cache)
        name = f"{__name__}:{task.__name__}"
        found.append(Case(GROUP, title, name, (str(options.cache),)))
    return found


_METHOD = f"""\
The first 256 captions of the benchmark of tokenizers through the text tower of ViT-B/32 with
random weights, on all cores. The ids are made before the measured time. clip and open_clip get 77
ids for each caption, transformers and hfclip's own model as many as the longest caption has.
`hfclip.optimize` gets 77 and skips the padding. Every run is a fresh process. A first call with
one caption is not counted; then the median of the calls within {encode_tasks.SECONDS} seconds
counts. clip, open_clip, transformers and hfclip's own model compute in float32 and are in each
table. Differences are those from hfclip's own model, the worst of {graphs.IMAGES} captions."""

_NOTES = """\
- In float32 (AMD EPYC family 25, 2026-11-25), products take nine tenths of the time and run at
  nine tenths of the machine's limit. At the whole limit, 176 captions a second are possible
  there.
- In bfloat16, attention takes half the time as two products if there are enough rows: the rate
  rose from 244 to 273 captions a second."""


def _title(precision: str) -> str:
    return f"In {precision}"


def _highlights() -> Iterator[Highlight]:
    for precision in encode.PRECISIONS:
        known = precision == "float32"
        work = f"Encode {GROUP}, ViT-B/32, {precision}"
        yield Highlight(
            work if known else f"{work} (peers in float32)",
            _title(precision),
            GROUP,
            least=1.0 if known else None,
        )


SECTION = Section(
    name="captions",
    title="Encode captions",
    method=_METHOD,
    baseline=optimized("float32"),
    measures=[
        *(
            Measure(
                _title(precision),
                "captions/s",
                figure(precision, EVERY),
                baseline=optimized(precision),
                more_is_better=True,
            )
            for precision in encode.PRECISIONS
        ),
        Measure(
            "Difference from the model",
            "of 1",
            figure("difference"),
            most={(GROUP, optimized("float32")): 1e-5},
            compared=False,
        ),
        Measure(
            "Cosine with the model",
            "of 1",
            figure("cosine"),
            least={
                (GROUP, optimized("bfloat16")): 0.999,
                (GROUP, optimized("int8")): 0.995,
            },
            compared=False,
        ),
    ],
    groups="of",
    notes=_NOTES,
    highlights=tuple(_highlights()),
)

BENCHMARK = Benchmark(SECTION, cases, warms_up=False)
