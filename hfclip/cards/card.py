"""Generates model cards (README.md) from a template."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hfclip.cards import marks as card_marks
from hfclip.config import ClipConfig, read_json
from hfclip.errors import ConfigError
from hfclip.layouts.files import OPEN_CLIP_WEIGHTS_FILE, WEIGHTS_FILE, Source
from hfclip.layouts.labels import LABELS_FILE
from hfclip.layouts.open_clip import config_to_open_clip
from hfclip.layouts.transformers import config_to_transformers
from hfclip.version import __version__

TEMPLATE = Path(__file__).with_name("card.md.jinja")
TASK = "zero-shot-image-classification"
# The model's name in the code of a card without a repository: the current folder.
HERE = "."

_WEIGHT_FILES = (WEIGHTS_FILE, OPEN_CLIP_WEIGHTS_FILE, "model.pt", "model.onnx")
_DESCRIBED: dict[str, Callable[[ClipConfig], object]] = {
    "open_clip": config_to_open_clip,
    "transformers": config_to_transformers,
}
_LIBRARIES = {"open_clip": "open_clip", "transformers": "transformers"}


class Metric(NamedTuple):
    """A metric's value on one dataset."""

    dataset: str
    name: str
    value: float


class Table(NamedTuple):
    """A section of a card with one table, whose first row is the header."""

    title: str
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class About:
    """The facts of a model card that the weights do not contain.

    Attributes:
        repo_id: The repository of the model on the Hub.
        license: The Hub's identifier of the licence, such as "mit".
        base_model: The repository on the Hub that the model was made from.
        datasets: The Hub's names of the training datasets.
        metrics: The metrics that the publisher measured.
        description: A paragraph that describes the model.
        provenance: Facts about the file that the weights were read from, by name.
        relation: How the model was made from `base_model`: "finetune", "copy", or "derived" if
            this is not known.
        tables: Measurements of these weights in more detail than `metrics`, and how they were made.
        limits: A paragraph on what was not measured, for the section of limits.
    """

    repo_id: str | None = None
    license: str | None = None
    base_model: str | None = None
    datasets: Sequence[str] = ()
    metrics: Sequence[Metric] = ()
    description: str | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    relation: str = "finetune"
    tables: Sequence[Table] = ()
    limits: str | None = None

    def __post_init__(self) -> None:
        """Converts plain tuples to `Metric` and `Table`."""
        object.__setattr__(self, "metrics", [Metric(*metric) for metric in self.metrics])
        object.__setattr__(self, "tables", [Table(*table) for table in self.tables])


def model_card(
    folder: Path, config: ClipConfig, about: About | None = None, layout: str = "hfclip"
) -> ModelCard:
    """Returns the card of the model in a folder. The same arguments give the same text.

    Args:
        folder: The folder that holds the weights.
        config: The model's configuration.
        about: The facts that the weights do not contain.
        layout: The layout of the folder, one of `hfclip.publishing.export.EXPORTS`.

    Returns:
        The card, with the comments of `hfclip.cards.marks`.
    """
    about = about or About()
    place = about.repo_id or ("model.pt" if layout == "openai" else HERE)
    card = ModelCard.from_template(
        card_data(about, layout),
        template_path=str(TEMPLATE),
        title=place.split("/")[-1] if about.repo_id else "A CLIP",
        description=about.description or _description(about),
        place=place,
        is_local=about.repo_id is None,
        open_clip_place=f"{'hf-hub' if about.repo_id else 'local-dir'}:{place}",
        layout=layout,
        exports=_exports(config),
        facts={**facts(config), "written by": f"hfclip {__version__}"},
        metrics=about.metrics,
        provenance=about.provenance,
        tables=[(title, _markdown(rows)) for title, rows in about.tables],
        limits=about.limits,
        has_labels=(folder / LABELS_FILE).is_file(),
        files=[file_row(folder / name) for name in _WEIGHT_FILES if (folder / name).is_file()],
    )
    return ModelCard(card_marks.seal(str(card), asdict(about)))


def _exports(config: ClipConfig) -> list[str]:
    """Returns the layouts of other packages that have a configuration and can describe a model."""
    possible = []
    for layout, describe in _DESCRIBED.items():
        with suppress(ConfigError):
            describe(config)
            possible.append(layout)
    return possible


def card_data(about: About, layout: str = "hfclip") -> ModelCardData:
    """Returns the metadata for the head of a card, which the Hub reads."""
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
        # Of the three relations, the Hub knows only "finetune".
        base_model_relation="finetune"
        if about.base_model and about.relation == "finetune"
        else None,
        model_name=(about.repo_id or "clip").split("/")[-1] if results else None,
        eval_results=results or None,
        ignore_metadata_errors=False,
    )


def facts(config: ClipConfig) -> dict[str, str]:
    """Returns the facts of a model by name, as text for a table."""
    side, resized = config.image_resolution, config.describe_preprocess()
    return {
        "image tower": config.describe_image_tower(),
        "text tower": config.describe_text_tower(),
        "image": f"{side} x {side} pixels" + (f", {resized}" if resized else ""),
        "embedding": f"{config.embed_dim} numbers",
        "activation": {"quick_gelu": "QuickGELU", "gelu": "GELU"}[config.activation],
        "parameters": f"{config.parameter_count:,}",
    }


def read_metrics(path: Path, datasets: Sequence[str]) -> list[Metric]:
    """Reads a JSON file of metrics: values by name, or by dataset and then by name.

    Args:
        path: The JSON file.
        datasets: The training datasets. If the file names no dataset, this must hold exactly one.

    Raises:
        ConfigError: The file has another form, a value is not a finite number, or no dataset is
            named.
    """
    values = read_json(path)
    if not all(isinstance(value, dict) for value in values.values()):
        if len(datasets) != 1:
            raise ConfigError(
                f"{path} has metrics without a dataset. Write "
                '{"dataset": {"metric": 0.9}}, or give exactly one dataset: `--dataset` on the '
                "command line, `datasets=` in Python."
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
        raise ConfigError(f"{path}: the value of {name} is {value!r}; expected a finite number.")
    return float(value)


_RELATIONS = {"finetune": "A fine-tune of", "copy": "A copy of", "derived": "Made from"}


def _description(about: About) -> str:
    if about.base_model:
        link = f"[{about.base_model}](https://huggingface.co/{about.base_model})"
        made = _RELATIONS.get(about.relation, "Made from")
        return f"{made} {link}: a CLIP model, which ranks captions for a picture."
    return (
        "A CLIP model: it encodes pictures and texts as vectors in the same space, and ranks "
        "captions for a picture."
    )


def file_row(path: Path) -> dict[str, str]:
    """Returns a file's row in the table of files: name, size in bytes, sha256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "size": f"{path.stat().st_size:,}", "sha256": digest}


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table, the header first."""
    header, *others = rows
    return [_row(header), _row(["---"] * len(header)), *map(_row, others)]


def _row(cells: Sequence[str]) -> str:
    """Returns a line of a Markdown table. Text from data, such as a label, cannot end a cell."""
    plain = (" ".join(cell.split()).replace("<", "&lt;").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(plain)} |"


def public_origin(source: Source) -> str:
    """Describes the origin of a model without the paths of this machine."""
    file = source.weights
    folder = file.parent.resolve().name
    return source.origin.replace(str(file), f"`{file.name}`").replace(
        f"folder {file.parent}", f"folder `{folder}`"
    )


def _slug(dataset: str) -> str:
    return "-".join(dataset.lower().split())
