"""Measures the time to a first answer: whole programs in fresh processes, with files in the cache.

    python -m benchmarks.first_answer desk /tmp/desk

writes a Hub cache with random weights of ViT-B/32, the same for the peers, a picture, and a
collection of 100,000 embeddings.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from benchmarks import weights
from benchmarks.measure import Case, Sample
from benchmarks.report import Highlight, Measure, Section
from benchmarks.suite import Benchmark, Options

MODEL, NAMESPACE, REPOSITORY = "ViT-B/32", "benchmark", "benchmark/ViT-B-32"
ROWS, WIDTH, _PART = 100_000, 512, 10_000
LABELS = ("cat", "dog", "car", "house", "tree", "boat", "bird", "horse", "road", "sea")

_CLASSIFY = (
    *("classify", "picture.jpg", "--model", MODEL, "--namespace", NAMESPACE),
    *("--labels", ",".join(LABELS)),
)
_SEARCH = ("search", "collection", "a red bicycle")
_CLASSIFIED, _SEARCHED = "classify a picture, 10 labels", f"search a text, {ROWS:,} vectors"
HFCLIP, TORCH = "hfclip", "hfclip --backend torch"
CLIP, OPEN_CLIP, TRANSFORMERS = "clip", "open_clip", "transformers"

# The shortest programs that print the probabilities of the labels.
_PEERS = {
    CLIP: f"""
import clip, torch
from PIL import Image
model, preprocess = clip.load("ViT-B-32.pt", "cpu")
image = preprocess(Image.open("picture.jpg"))[None]
text = clip.tokenize([f"a photo of a {{label}}" for label in {LABELS}])
with torch.no_grad():
    print(model(image, text)[0].softmax(-1).tolist())
""",
    OPEN_CLIP: f"""
import open_clip, torch
from PIL import Image
model, _, preprocess = open_clip.create_model_and_transforms(
    "ViT-B-32", "ViT-B-32.safetensors", force_quick_gelu=True
)
image = preprocess(Image.open("picture.jpg"))[None]
text = open_clip.get_tokenizer("ViT-B-32")([f"a photo of a {{label}}" for label in {LABELS}])
with torch.no_grad():
    images = model.eval().encode_image(image, normalize=True)
    texts = model.encode_text(text, normalize=True)
    print((model.logit_scale.exp() * images @ texts.T).softmax(-1).tolist())
""",
    TRANSFORMERS: f"""
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor
model = CLIPModel.from_pretrained("transformers")
inputs = CLIPProcessor.from_pretrained("transformers")(
    images=Image.open("picture.jpg"),
    text=[f"a photo of a {{label}}" for label in {LABELS}],
    return_tensors="pt",
    padding=True,
)
with torch.no_grad():
    print(model(**inputs).logits_per_image.softmax(-1).tolist())
""",
}
_PACKAGES = {CLIP: "clip", OPEN_CLIP: "open_clip", TRANSFORMERS: "transformers"}

COMMANDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (_CLASSIFIED, HFCLIP, (*_CLASSIFY, "--no-label-cache")),
    (_CLASSIFIED, "hfclip, labels in the cache", _CLASSIFY),
    (_CLASSIFIED, TORCH, (*_CLASSIFY, "--no-label-cache", "--backend", "torch")),
    (_SEARCHED, HFCLIP, _SEARCH),
    (_SEARCHED, TORCH, (*_SEARCH, "--backend", "torch")),
    ("--help", HFCLIP, ("--help",)),
    ("models", HFCLIP, ("models",)),
    ("inspect", HFCLIP, ("inspect", MODEL, "--namespace", NAMESPACE)),
)


def command(desk: str, *arguments: str) -> Iterator[tuple[str, float] | str]:
    """Runs `hfclip` on a desk, and yields its seconds and its peak memory in MB."""
    yield from _process(desk, ["-m", "hfclip", *arguments])


def script(desk: str, name: str) -> Iterator[tuple[str, float] | str]:
    """Runs the program of a peer on a desk, and yields its seconds and its peak memory in MB."""
    if find_spec(_PACKAGES[name]) is None:
        raise ImportError(f"No module named {_PACKAGES[name]!r}")
    yield from _process(desk, ["-c", _PEERS[name]])


def _process(desk: str, arguments: list[str]) -> Iterator[tuple[str, float] | str]:
    """Runs Python in a process of its own, with the compiled modules of the first round."""
    environment = {
        **os.environ,
        "HF_HOME": f"{desk}/home",
        "HF_HUB_CACHE": f"{desk}/hub",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1])]),
        "PYTHONPYCACHEPREFIX": f"{desk}/compiled",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=desk,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(errors.read().decode())
    yield "seconds", seconds
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    yield "memory", kilobytes * 1024 / 1e6


def cases(options: Options) -> list[Case]:
    """Returns a case for each command and each peer; writes the files that they read."""
    desk = str(weights.written(options.cache / "first-answer-1", __name__, "desk"))
    ours = [
        Case(group, engine, f"{__name__}:command", (desk, *arguments))
        for group, engine, arguments in COMMANDS
    ]
    return [
        *ours,
        *(Case(_CLASSIFIED, name, f"{__name__}:script", (desk, name)) for name in _PEERS),
    ]


def write_desk(desk: Path) -> None:
    """Writes all files that the programs read."""
    from PIL import Image

    from hfclip.publishing.export import export

    desk.mkdir()
    model = weights.random_model(MODEL)
    model.save_pretrained(desk / "native")
    _write_cache(desk / "native", desk / "hub")
    export(desk / "native", desk / "transformers", "transformers")
    weights.write_safetensors(MODEL, desk / "ViT-B-32.safetensors")
    weights.write_archive(MODEL, desk / "ViT-B-32.pt")
    Image.effect_noise((640, 480), 80).convert("RGB").save(desk / "picture.jpg")
    _write_collection(desk)
    shutil.rmtree(desk / "native")


def _write_cache(model: Path, cache: Path) -> None:
    """Writes a Hub cache with the files of a model at `weights.COMMIT`, and the list of them."""
    import json

    from hfclip.hub.cache import repository_folder
    from hfclip.hub.integrity import compute

    folder = cache / repository_folder(REPOSITORY)
    listed = {}
    for name in ("blobs", "refs", "trees", f"snapshots/{weights.COMMIT}"):
        (folder / name).mkdir(parents=True)
    for path in sorted(model.iterdir()):
        blob = compute(path, "sha256")
        path.rename(folder / "blobs" / blob)
        path.symlink_to(folder / "blobs" / blob)
        (folder / "snapshots" / weights.COMMIT / path.name).symlink_to(f"../../blobs/{blob}")
        listed[path.name] = {"lfs_sha256": blob, "blob_id": None}
    (folder / "refs/main").write_text(weights.COMMIT)
    tree = {"format_version": 1, "files": listed}
    (folder / f"trees/{weights.COMMIT}.json").write_text(json.dumps(tree))


def _write_collection(desk: Path) -> None:
    """Writes a collection of random embeddings of the model in the cache."""
    import numpy as np

    from hfclip.embedding.changes import update_plan
    from hfclip.embedding.identity import config_digest
    from hfclip.embedding.items import Item
    from hfclip.embedding.manifest import Manifest, write_manifest
    from hfclip.embedding.parts import Rows, Vectors, write_part
    from hfclip.hub.integrity import compute
    from hfclip.releases import RELEASES
    from hfclip.version import __version__

    out = desk / "collection"
    items = (Item(f"photos/{number:06}.jpg", None, None, number, 0) for number in range(ROWS))
    changes = update_plan(out, items, part_size=_PART)
    manifest = Manifest(
        name=REPOSITORY,
        repository=REPOSITORY,
        commit=weights.COMMIT,
        sha256=compute(desk / "native/model.safetensors", "sha256"),
        config_digest=config_digest(RELEASES[MODEL].config),
        preprocess="fast",
        precision="float32",
        normalized=True,
        dimension=WIDTH,
        dtype="float16",
        kind="images",
        background=None,
        auto_orient=True,
        max_pixels=10**8,
        sources=("photos",),
        version=__version__,
    )
    write_manifest(out, manifest)
    random = np.random.default_rng(0)
    for number in changes.pending:
        keys = [item.key for item in changes.plan.part(number).items]
        vectors = random.standard_normal((len(keys), WIDTH), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        none: list[None] = [None] * len(keys)
        rows = Rows(
            keys=keys,
            embeddings=Vectors(vectors, np.ones(len(keys), bool)),
            errors=list(none),
            widths=[640] * len(keys),
            heights=[480] * len(keys),
            captions=list(none),
            caption_embeddings=None,
            digests=[key.encode().ljust(32)[:32] for key in keys],
        )
        write_part(out, number, rows, dtype="float16", dimension=WIDTH)


def _figure(lap: str, sample: Sample) -> float | None:
    return sample[lap].figure


def _seconds(sample: Sample) -> float | None:
    return _figure("seconds", sample)


def _memory(sample: Sample) -> float | None:
    return _figure("memory", sample)


ANSWER, PEAK = "Seconds to the answer", "Peak memory"
SECTION = Section(
    name="first-answer",
    title="A first answer",
    method=(
        "Whole programs from the start of Python to their end, each in a fresh process, with "
        "random weights of full size and all files in the page cache. hfclip finds the model in "
        "the cache of the Hub, without a network; the peers get the paths of their files. The "
        "programs of the peers are the shortest that print probabilities. The first round is not "
        "counted; it compiles modules, verifies weights and builds the matrix of the collection."
    ),
    baseline=HFCLIP,
    measures=[
        Measure(
            ANSWER,
            "s",
            _seconds,
            {
                (_CLASSIFIED, TORCH): 4,
                **{(_CLASSIFIED, name): 8 for name in _PEERS},
            },
            most={
                (_CLASSIFIED, HFCLIP): 0.7,
                (_SEARCHED, HFCLIP): 0.6,
                ("--help", HFCLIP): 0.15,
                ("models", HFCLIP): 0.35,
                ("inspect", HFCLIP): 0.4,
            },
        ),
        Measure(PEAK, "MB", _memory, {(_CLASSIFIED, TORCH): 1 / 0.6}),
    ],
    groups="program",
    highlights=(
        Highlight("A first answer: classify a picture, ViT-B/32", ANSWER, _CLASSIFIED, least=8),
    ),
)

BENCHMARK = Benchmark(SECTION, cases, rounds=5)


def main() -> None:
    """Writes the files to the folder that the command line names."""
    _, path = sys.argv[1:]
    try:
        write_desk(Path(path))
    except KeyboardInterrupt:  # the measuring process was interrupted too, and reports it
        sys.exit(130)


if __name__ == "__main__":
    main()
