"""Measures the encoding of images on the CPU: hfclip, `hfclip.optimize` and their peers."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks import encode_tasks as tasks
from benchmarks import graphs, weights
from benchmarks.encode_tasks import BATCHES, EVERY, SECONDS, Step, lap
from benchmarks.measure import Case, Sample
from benchmarks.report import Highlight, Measure, Section
from benchmarks.suite import Benchmark, Options

MODELS = ("ViT-B/32", "ViT-B/16", "ViT-L/14", "RN50")
PRECISIONS = ("float32", "bfloat16", "int8")


class Engine(NamedTuple):
    """One engine: its title, task, package, inputs, and whether it has ResNets."""

    title: str
    task: Callable[[str, str], Iterator[Step]]
    package: str
    reads: tuple[str, ...]
    resnets: bool = True


def optimized(precision: str) -> str:
    """Returns the title of hfclip's engine for a precision."""
    return f"hfclip.optimize, {precision}"


FAST = optimized("float32")
CLIP, OPEN_CLIP, TRANSFORMERS = "clip", "open_clip", "transformers"
ONNXRUNTIME, ONNXRUNTIME_INT8 = "onnxruntime, float32", "onnxruntime, int8"
OPENVINO, OPENVINO_BFLOAT16 = "OpenVINO, float32", "OpenVINO, bfloat16"
ENGINES = (
    Engine(FAST, tasks.optimized_float32, "hfclip", ("safetensors",)),
    Engine(optimized("bfloat16"), tasks.optimized_bfloat16, "hfclip", ("safetensors",)),
    Engine(optimized("int8"), tasks.optimized_int8, "hfclip", ("safetensors",), resnets=False),
    Engine("hfclip", tasks.hfclip, "hfclip", ("safetensors",)),
    Engine(CLIP, tasks.clip, "clip", ("archive", "features")),
    Engine(OPEN_CLIP, tasks.open_clip, "open_clip", ("safetensors",)),
    Engine(
        TRANSFORMERS,
        tasks.transformers,
        "transformers",
        ("transformers", "safetensors"),
        resnets=False,
    ),
    Engine(ONNXRUNTIME, tasks.onnxruntime_float32, "onnxruntime", ("onnx",)),
    Engine(ONNXRUNTIME_INT8, tasks.onnxruntime_int8, "onnxruntime", ("onnx",), resnets=False),
    Engine(OPENVINO, tasks.openvino_float32, "openvino", ("openvino",)),
    Engine(OPENVINO_BFLOAT16, tasks.openvino_bfloat16, "openvino", ("openvino",)),
)


def cases(options: Options) -> list[Case]:
    """Returns a case for every engine and model; writes the inputs that do not exist."""
    from hfclip.releases import RELEASES

    found = []
    for model in options.models or MODELS:
        for engine in ENGINES:
            if engine.resnets or not RELEASES[model].config.is_resnet:
                if find_spec(engine.package):
                    provide(engine.reads, model, options.cache)
                task = f"{tasks.__name__}:{engine.task.__name__}"
                found.append(Case(model, engine.title, task, (str(options.cache), model)))
    return found


def provide(kinds: tuple[str, ...], model: str, cache: Path) -> None:
    """Writes weights, graphs and features unless they exist."""
    for kind in kinds:
        if kind in graphs.KINDS:
            graphs.provide(kind, model, cache)
        else:
            weights.provide(kind, model, cache)


def figure(*names: str) -> Callable[[Sample], float | None]:
    """Returns a function that reads the first of these figures that a sample has."""
    return lambda sample: next((sample[name].figure for name in names if name in sample), None)


# Engines that compute in the precision of hfclip.optimize and are made for speed.
_RUNTIMES = {
    "float32": (ONNXRUNTIME, OPENVINO),
    "bfloat16": (OPENVINO_BFLOAT16,),
    "int8": (ONNXRUNTIME_INT8,),
}
# Least share of the limit with ViT-B/32 and the larger batch.
_SHARES = {"float32": 0.85, "bfloat16": 0.8, "int8": None}


def _title(precision: str, batch: int) -> str:
    return f"In {precision}, a batch of {batch}"


def _share_title(precision: str) -> str:
    return f"Share of oneDNN's limit in {precision}, a batch of {BATCHES[-1]}"


def _rates() -> Iterator[Measure]:
    for precision in PRECISIONS:
        for batch in BATCHES:
            yield Measure(
                _title(precision, batch),
                "images/s",
                figure(lap(precision, batch), lap(EVERY, batch)),
                {(model, engine): 1.0 for model in MODELS for engine in _RUNTIMES[precision]},
                baseline=optimized(precision),
                more_is_better=True,
            )


def _shares() -> Iterator[Measure]:
    for precision, share in _SHARES.items():
        yield Measure(
            _share_title(precision),
            "of 1",
            figure(f"{precision}, share"),
            least={("ViT-B/32", optimized(precision)): share} if share else {},
            compared=False,
        )


def _highlights() -> Iterator[Highlight]:
    for model in MODELS:
        for precision in PRECISIONS:
            for batch in BATCHES:
                if precision != "int8" or model != "RN50":
                    yield Highlight(
                        f"Encode images, {model}, {precision}, batch {batch}",
                        _title(precision, batch),
                        model,
                        share=_share_title(precision) if batch == BATCHES[-1] else "",
                    )


_METHOD = f"""\
Random pictures through image towers of full size with random weights, on all cores. Every run is
a fresh process and the engines take turns. A first call with one picture is not counted; then the
median of the calls within {SECONDS} seconds counts. onnxruntime runs the graph that torch
exports, and in int8 the result of its own `quantize_dynamic`. OpenVINO runs the graph that it
converts from torch, in the precision of the table. clip, open_clip, transformers and hfclip's own
model compute in float32; the first three are in each table. The difference is the norm of the
difference from clip's features divided by their norm. The cosine is that of both features. Both
are the worst of 16 pictures.

The share of the limit divides the speed of the encoding by the speed of a matrix product of 800 x
768 x 3072 in oneDNN. Encoding and product take turns, and their medians count. The operations are
those that `hfclip.optimize` computes, which are fewer than those of the model. The product has
the type that is really computed in: without instructions for bfloat16 or int8, `hfclip.optimize`
computes in float32, which is faster there.

The targets do not depend on the processor: the best runtime of the same precision, and a share of
the limit that is measured in the same run. The ratios to clip, open_clip and transformers have no
target, since they depend on how close `F.linear` in float32 comes to the limit of the processor."""

_NOTES = """\
- AVX2 alone (AMD EPYC family 23, ViT-B/32, 2026-11-25): `F.linear`, which clip uses, reaches 68
  GFLOP/s and the packed product of oneDNN 76. At the whole limit `hfclip.optimize` would be 1.41
  times as fast as clip, because it computes one position in the last block. It was 1.22 times as
  fast with 16 pictures, at 0.87 of the limit, and 1.61 times with one. With one picture
  onnxruntime was 5% and OpenVINO 10% faster. By oneDNN's log, nine tenths of the time are
  products; the work between the products explains the difference.
- On the same processor, `F.linear` in bfloat16 reaches 0.17 of its speed in float32 and there is
  no packed product. int8 products are not faster than float32 and overflow: a small model of the
  tests had a cosine of 0.96. `hfclip.optimize` computes both in float32 there.
- AVX-512 (AMD EPYC family 25, 2026-11-25): `F.linear` reaches 0.6 to 0.9 of the packed product
  (126 to 191 of 214 GFLOP/s); on Zen 5 it reaches 0.4. By torch's profiler, 94% of the time in
  float32 are products. The fused activation costs 4% of the first product of an MLP, and as much
  if it is separate.
- The weights of a ResNet that were packed for eight pictures were packed again at each call with
  one picture. A second packing raised RN50 with one picture from 7.7 to 16 a second with AVX-512,
  and from 2.7 to 5.5 with AVX2.
- One picture of ViT-B/32 in bfloat16 (AMD EPYC family 25): 23 of 27 ms are products, at 0.8 of
  the limit because the weights come from memory. Attention of 50 tokens takes 1.6 ms; two
  products, float32 and the scaled product are not faster. In turns with OpenVINO in one process
  the times are equal (29.4 and 30.2 ms); in separate processes hfclip is 10% slower. There are no
  page faults during a call. In int8 the fused activation is also faster than a separate one."""

SECTION = Section(
    name="encode",
    title="Encode images",
    method=_METHOD,
    baseline=FAST,
    measures=[
        *_rates(),
        *_shares(),
        Measure(
            "Difference from clip",
            "of 1",
            figure("difference"),
            most={(model, FAST): 1e-5 for model in MODELS},
            compared=False,
        ),
        Measure(
            "Cosine with clip",
            "of 1",
            figure("cosine"),
            least={
                (model, optimized(precision)): lowest
                for model in MODELS
                for precision, lowest in (("bfloat16", 0.999), ("int8", 0.995))
            },
            compared=False,
        ),
    ],
    notes=_NOTES,
    highlights=tuple(_highlights()),
)

BENCHMARK = Benchmark(SECTION, cases, warms_up=False)
