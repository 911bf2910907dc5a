"""Measures training steps of ViT-B/32 on the CPU: hfclip, open_clip and transformers.

A step is what each package's own training program computes for a batch of 16 pictures and captions
that are in memory: both towers, the loss over the batch, the gradients, their clipping, and AdamW.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import encode, encode_tasks, graphs, tokenization, weights
from benchmarks.encode import OPEN_CLIP, TRANSFORMERS, figure
from benchmarks.encode_tasks import Step
from benchmarks.measure import Case, Sample
from benchmarks.report import Highlight, Measure, Section
from benchmarks.suite import Benchmark, Options
from benchmarks.weights import written

if TYPE_CHECKING:
    from torch import Tensor, nn

MODEL = "ViT-B/32"
PICTURES = graphs.IMAGES
# The name of bfloat16 on processors that compute it with the instructions for float32.
EMULATED = "bfloat16 (emulated)"
PRECISIONS = ("float32", "bfloat16", EMULATED)
LABELS = f"{PICTURES} pictures of 10 classes"
CAPTIONS = f"{PICTURES} pictures with captions"
GROUPS = {"labels": LABELS, "captions": CAPTIONS}
# Steps that are timed in each precision, after one that is not. Emulated ones take several times as
# long, and the first of them as long as the next.
STEPS = 3
_CLASSES = ["cat", "dog", "bird", "car", "boat", "horse", "train", "tree", "house", "lamp"]
_FOLDER = "captions-1"
_LR, _CLIP = 1e-5, 1.0


def hfclip(cache: str, kind: str) -> Iterator[Step]:
    """Trains with the step of `hfclip finetune`: distinct captions, without padding."""
    import torch

    from hfclip import tokenize
    from hfclip.training.memory import kept_memory
    from hfclip.training.optimizer import choose_parameters, clamp_logit_scale, make_optimizer
    from hfclip.training.processes import Processes
    from hfclip.training.settings import Settings
    from hfclip.training.step import Batch, compute_gradients

    model = encode_tasks.hfclip_model(cache, MODEL).float()
    parameters = choose_parameters(model, "both")
    optimizer = make_optimizer(model, parameters, Settings(lr=_LR))
    texts = _texts(cache, kind)
    distinct = list(dict.fromkeys(texts))
    batch = Batch(
        tuple(range(PICTURES)),
        graphs.images(MODEL),
        tokenize(distinct, truncate=True, padding="longest"),
        torch.tensor([[text == other for other in distinct] for text in texts]),
    )
    alone = Processes(0, 1, torch.device("cpu"))

    def step(precision: str) -> None:
        own = list(parameters.values())
        compute_gradients(model, own, batch, alone, PICTURES, bf16=precision != "float32")
        torch.nn.utils.clip_grad_norm_(own, _CLIP)
        optimizer.step()
        clamp_logit_scale(model)

    yield "load"
    with kept_memory():
        yield from _laps(step)


def open_clip(cache: str, kind: str) -> Iterator[Step]:
    """Trains with open_clip's model, tokenizer, loss and autocast; captions are padded to 77."""
    import open_clip as package

    path = str(weights.locate("safetensors", MODEL, Path(cache)))
    name = MODEL.replace("/", "-")
    model = package.create_model(name, pretrained=path, device="cpu", force_quick_gelu=True).train()
    images, tokens = graphs.images(MODEL), package.get_tokenizer(name)(_texts(cache, kind))
    contrastive = package.ClipLoss()

    def loss() -> "Tensor":
        of_images, of_texts, scale = model(images, tokens)
        found: Tensor = contrastive(of_images, of_texts, scale)
        return found

    yield "load"
    yield from _laps(_step(model, loss))


def transformers(cache: str, kind: str) -> Iterator[Step]:
    """Trains with transformers' model, loss and fused attention; captions are padded to 77."""
    from hfclip import tokenize

    model = encode_tasks.transformers_model(cache, MODEL).train()
    # Its tokenizer gives the same ids and pads with the end token, at the same cost.
    tokens = tokenize(_texts(cache, kind), truncate=True).long()
    images = graphs.images(MODEL)

    def loss() -> "Tensor":
        found: Tensor = model(input_ids=tokens, pixel_values=images, return_loss=True).loss
        return found

    yield "load"
    yield from _laps(_step(model, loss))


def _step(model: "nn.Module", loss: Callable[[], "Tensor"]) -> Callable[[str], None]:
    """Returns the step of a peer, with the optimizer of hfclip: AdamW in one kernel a tensor."""
    import torch

    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=_LR, betas=(0.9, 0.98), eps=1e-6, fused=True)

    def step(precision: str) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != "float32"):
            found = loss()
        found.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
        optimizer.step()

    return step


def _laps(step: Callable[[str], None]) -> Iterator[Step]:
    """Yields pairs of picture and caption a second in each precision that this machine computes."""
    for precision in _precisions():
        is_emulated = precision == EMULATED
        if not is_emulated:
            step(precision)
        taken = []
        for _ in range(1 if is_emulated else STEPS):
            start = time.perf_counter()
            step(precision)
            taken.append(time.perf_counter() - start)
        yield precision, PICTURES / statistics.median(taken)


def _precisions() -> Iterator[str]:
    import torch

    from hfclip.fast.processor import has_instructions

    yield "float32"
    if has_instructions("bfloat16"):
        yield "bfloat16"
    elif torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001  # no public way to ask
        yield EMULATED


def _texts(cache: str, kind: str) -> list[str]:
    """Returns the caption of each picture."""
    if kind == "labels":
        return [f"a photo of a {_CLASSES[row % len(_CLASSES)]}" for row in range(PICTURES)]
    file = Path(cache) / _FOLDER / "captions.txt"
    return file.read_text(encoding="utf-8").splitlines()[:PICTURES]


# Title, task, package and inputs of each engine.
ENGINES: tuple[tuple[str, Callable[[str, str], Iterator[Step]], str, tuple[str, ...]], ...] = (
    ("hfclip", hfclip, "accelerate", ("safetensors",)),
    (OPEN_CLIP, open_clip, "open_clip", ("safetensors",)),
    (TRANSFORMERS, transformers, "transformers", ("transformers", "safetensors")),
)


def cases(options: Options) -> list[Case]:
    """Returns a case for each engine and group; writes the inputs that do not exist."""
    written(options.cache / _FOLDER, tokenization.__name__)
    found = []
    for kind, group in GROUPS.items():
        for title, task, package, reads in ENGINES:
            if find_spec(package):
                encode.provide(reads, MODEL, options.cache)
            name = f"{__name__}:{task.__name__}"
            found.append(Case(group, title, name, (str(options.cache), kind)))
    return found


_METHOD = f"""\
Steps of training ViT-B/32 with random weights on batches of {PICTURES} pictures, on all cores.
Pictures are preprocessed and captions tokenized before the measured time. A step computes both
towers, the loss over the batch, all gradients, clips their norm and updates all parameters with
AdamW (fused, for each engine). open_clip and transformers encode a caption for each picture, padded
to 77 tokens, as their training programs do. hfclip encodes each distinct caption once and without
padding, and computes only the pooled position in the last block of each tower; the gradients are
the same up to rounding. The captions are the first {PICTURES} of the benchmark of tokenizers; the
labels make {len(_CLASSES)} distinct captions. Weights are float32. In bfloat16 the matrix
products are computed in bfloat16: open_clip and transformers use autocast. On a processor without
instructions for bfloat16, oneDNN emulates it with those for float32, several times slower than
float32. There `hfclip finetune` chooses float32, and the table only compares the engines. Every run
is a fresh process. One step is not counted; then the median of {STEPS} counts, and one step in
emulated bfloat16."""


def _peak(sample: Sample) -> float:
    return max(lap.peak for lap in sample.values()) / 1e6


def _title(precision: str) -> str:
    return f"In {precision}"


def _highlights() -> Iterator[Highlight]:
    for group in GROUPS.values():
        for precision in PRECISIONS:
            yield Highlight(f"Train ViT-B/32, {group}, {precision}", _title(precision), group)


SECTION = Section(
    name="training",
    title="Train",
    method=_METHOD,
    baseline="hfclip",
    measures=[
        *(
            Measure(
                _title(precision),
                "pairs/s",
                figure(precision),
                {
                    (group, peer): 1.5
                    for group in GROUPS.values()
                    for peer in (OPEN_CLIP, TRANSFORMERS)
                },
                more_is_better=True,
            )
            for precision in PRECISIONS
        ),
        Measure("Peak memory", "MB", _peak),
    ],
    groups="batch",
    highlights=tuple(_highlights()),
)

BENCHMARK = Benchmark(SECTION, cases, warms_up=False)
