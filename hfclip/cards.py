"""Model cards: what a repository's page says of its model, from a template."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hfclip import __version__
from hfclip.config import ClipConfig, read_json
from hfclip.errors import ConfigError
from hfclip.sources import OPEN_CLIP_WEIGHTS_FILE, WEIGHTS_FILE

TEMPLATE = Path(__file__).with_name("card.md.jinja")
TASK = "zero-shot-image-classification"

_WEIGHTS = (WEIGHTS_FILE, OPEN_CLIP_WEIGHTS_FILE, "model.pt", "model.onnx")
_LIBRARIES = {"open_clip": "open_clip", "transformers": "transformers"}


class Metric(NamedTuple):
    """One figure, measured on one dataset."""

    dataset: str
    name: str
    value: float


@dataclass(frozen=True)
class About:
    """What the weights cannot tell of a model.

    Attributes:
        repo_id: Where it is or will be published.
        license: A licence as the Hub names it, such as "mit".
        base_model: The repository that it was fine-tuned from.
        datasets: What it was trained on, as the Hub names it.
        metrics: What its publisher measured.
        description: A paragraph that says what the model is.
        provenance: Facts of the file that the weights were read from.
    """

    repo_id: str | None = None
    license: str | None = None
    base_model: str | None = None
    datasets: Sequence[str] = ()
    metrics: Sequence[Metric] = ()
    description: str | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)


def model_card(
    folder: Path, config: ClipConfig, about: About | None = None, layout: str = "hfclip"
) -> ModelCard:
    """Describes the model whose files lie in a folder; the same folder gives the same text."""
    about = about or About()
    place = about.repo_id or "path/to/this/folder"
    if layout == "openai" and not about.repo_id:
        place += "/model.pt"
    return ModelCard.from_template(  # type: ignore[no-any-return]
        card_data(about, layout),
        template_path=str(TEMPLATE),
        title=place.split("/")[-1] if about.repo_id else "A CLIP",
        description=about.description or _description(about),
        place=place,
        open_clip_place=f"{'hf-hub' if about.repo_id else 'local-dir'}:{place}",
        layout=layout,
        is_vit=not config.is_resnet,
        facts={**facts(config), "written by": f"hfclip {__version__}"},
        metrics=about.metrics,
        provenance=about.provenance,
        files=[file_row(folder / name) for name in _WEIGHTS if (folder / name).is_file()],
    )


def card_data(about: About, layout: str = "hfclip") -> ModelCardData:
    """The metadata at the head of a card, which the Hub reads."""
    library = _LIBRARIES.get(layout, "hfclip")
    results = [
        EvalResult(TASK, _slug(metric.dataset), metric.dataset, metric.name, metric.value)
        for metric in about.metrics
    ]
    return ModelCardData(
        license=about.license,
        library_name=library,
        pipeline_tag=TASK,
        tags=["clip", "hfclip"],
        datasets=list(about.datasets) or None,
        base_model=about.base_model,
        base_model_relation="finetune" if about.base_model else None,
        model_name=(about.repo_id or "clip").split("/")[-1] if results else None,
        eval_results=results or None,
        ignore_metadata_errors=False,
    )


def facts(config: ClipConfig) -> dict[str, str]:
    """The numbers of a model, for a reader."""
    side = config.image_resolution
    return {
        "image tower": config.describe_image_tower(),
        "text tower": config.describe_text_tower(),
        "image": f"{side} x {side} pixels",
        "embedding": f"{config.embed_dim} numbers",
        "activation": {"quick_gelu": "QuickGELU", "gelu": "GELU"}[config.activation],
        "parameters": f"{config.parameter_count:,}",
    }


def read_metrics(path: Path, datasets: Sequence[str]) -> list[Metric]:
    """Reads a JSON file of figures: metrics by name, or by dataset and then by name.

    Raises:
        ConfigError: It holds something else, or does not tell what was measured on.
    """
    values = read_json(path)
    if not all(isinstance(value, dict) for value in values.values()):
        if len(datasets) != 1:
            raise ConfigError(
                f"{path} gives metrics without a dataset. Name the one that they were measured on "
                'with --dataset, or write {"dataset": {"metric": 0.9}}.'
            )
        values = {datasets[0]: values}
    return [
        Metric(dataset, name, _figure(path, f"{dataset}: {name}", value))
        for dataset, metrics in values.items()
        for name, value in metrics.items()
    ]


def _figure(path: Path, name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ConfigError(f"{path} says {name} is {value!r}; a metric is a finite number.")
    return float(value)


def _description(about: About) -> str:
    if about.base_model:
        link = f"[{about.base_model}](https://huggingface.co/{about.base_model})"
        return f"A fine-tune of {link}: a CLIP, which ranks captions for a picture."
    return "A CLIP: it encodes pictures and texts into one space, and so ranks captions."


def file_row(path: Path) -> dict[str, str]:
    """A file as a card lists it: name, bytes, sha256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "size": f"{path.stat().st_size:,}", "sha256": digest}


def _slug(dataset: str) -> str:
    return "-".join(dataset.lower().split())
