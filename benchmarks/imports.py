"""Measures the imports of the packages and the start of the command line."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module

from benchmarks.load import MEGABYTE
from benchmarks.measure import Case, Sample
from benchmarks.report import Measure, Section
from benchmarks.suite import Benchmark, Options

TORCH = "torch"
HFCLIP, CLIP, OPEN_CLIP = "hfclip.load, hfclip.tokenize", "clip", "open_clip"
TRANSFORMERS = "transformers.CLIPModel"
PACKAGES = {
    HFCLIP: ("hfclip:load,tokenize,image_transform",),
    CLIP: ("clip:load,tokenize",),
    OPEN_CLIP: ("open_clip:create_model_and_transforms,get_tokenizer",),
    TRANSFORMERS: ("transformers:CLIPModel",),
    TORCH: (TORCH,),
    "torch and torchvision.transforms": (TORCH, "torchvision.transforms"),
    "hfclip, without a name of it": ("hfclip",),
}
COMMANDS = {
    "hfclip classify, bundled model": (
        *("classify", "hfclip/digits/seven.png", "--model", "digits", "--labels", "six,seven"),
        *("--template", "the digit {}"),
    ),
    "hfclip --help": ("--help",),
}


def imported(*modules: str) -> Iterator[str]:
    """Imports modules, and for each module the names after the colon."""
    for entry in modules:
        module, _, names = entry.partition(":")
        for name in filter(None, names.split(",")):
            getattr(import_module(module), name)
        import_module(module)
    yield "all"


def command(*arguments: str) -> Iterator[str]:
    """Runs the command line of hfclip, including the start of Python."""
    subprocess.run(
        [sys.executable, "-m", "hfclip.cli", *arguments], check=True, stdout=subprocess.DEVNULL
    )
    yield "command"


def cases(_options: Options) -> list[Case]:
    """Returns a case for each package and each command."""
    return [
        *(Case("import", title, f"{__name__}:imported", own) for title, own in PACKAGES.items()),
        *(Case("answer", title, f"{__name__}:command", own) for title, own in COMMANDS.items()),
    ]


def _seconds(sample: Sample) -> float:
    return next(iter(sample.values())).seconds


def _memory(sample: Sample) -> float | None:
    return sample["all"].peak / MEGABYTE if "all" in sample else None


SECTION = Section(
    name="imports",
    title="Imports and the command line",
    method=(
        "Each case runs in a fresh process, with its files in the page cache. Imports are timed "
        "after the start of Python, commands including it."
    ),
    baseline=HFCLIP,
    measures=[Measure("Seconds", "s", _seconds), Measure("Peak memory", "MB", _memory)],
    groups="kind",
)

BENCHMARK = Benchmark(SECTION, cases)
