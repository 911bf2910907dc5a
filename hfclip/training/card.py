"""The facts of a fine-tune for its model card. Imports no torch."""

from collections.abc import Iterator
from datetime import timedelta

from hfclip.cards.card import About, Metric, Table
from hfclip.releases import BUNDLED
from hfclip.training.metrics import Metrics
from hfclip.training.results import Results, Scores

# Labels that the card lists. The others are in labels.json.
_LISTED = 30
_TOWERS = {"both": "both towers", "image": "the image tower", "text": "the text tower"}


def about_of(results: Results) -> About:
    """Returns the facts of a card: base, results, what was forgotten, settings and limits.

    The licence is left out: hfclip does not know it. `hfclip publish --license` sets it.
    """
    own = f"{results.data.repository or 'own data'} {results.split} split"
    return About(
        base_model=results.base.repository,
        datasets=[results.data.repository] if results.data.repository else (),
        metrics=[
            Metric(own, name, round(value, 6)) for name, value in results.mixed.own.shares().items()
        ],
        description=_description(results),
        tables=[
            Table("Before and after", list(_comparison(results))),
            Table("Fine-tuning", [["", ""], *_facts(results)]),
            Table("Settings", [["setting", "value"], *_settings(results)]),
        ],
        limits=_limits(results),
    )


def _description(results: Results) -> str:
    base = results.base
    if base.repository:
        name = f"[{base.name}](https://huggingface.co/{base.repository})"
    elif base.name in BUNDLED:
        name = f"`{base.name}`, a model inside the package hfclip"
    else:
        name = base.name
    what = f"{results.data.train:,} pictures with captions"
    if results.labels is not None:
        what = f"{results.data.train:,} pictures of {len(results.labels):,} classes"
    return (
        f"A fine-tune of {name}, on {what}: a CLIP model, which ranks captions for a picture. "
        "Trained with `hfclip finetune`."
    )


def _comparison(results: Results) -> Iterator[list[str]]:
    """Yields the header and one row for each number, before and after."""
    models = columns(results)
    yield ["", *models]
    own = [scores.own for scores in models.values()]
    yield from _rows(own, f"{results.split} split")
    keep = [scores.keep for scores in models.values() if scores.keep is not None]
    if len(keep) == len(models):
        yield from _rows(keep, "not to forget")


def columns(results: Results) -> dict[str, Scores]:
    """Returns the scores to compare, by their title."""
    if results.alpha == 1:
        return {"base": results.before, "fine-tuned": results.mixed}
    mixture = f"mixed, {results.alpha:g} fine-tuned"
    return {"base": results.before, "fine-tuned": results.tuned, mixture: results.mixed}


def _rows(found: list[Metrics], where: str) -> Iterator[list[str]]:
    for name in found[0].shares():
        title = f"{name}, {where} ({found[0].count:,} pictures)"
        yield [title, *(f"{100 * metrics.shares()[name]:.2f} %" for metrics in found)]


def _facts(results: Results) -> Iterator[list[str]]:
    base, data = results.base, results.data
    yield ["base", f"{base.name} at commit `{base.commit}`" if base.commit else base.name]
    yield ["trained", _TOWERS.get(str(results.settings.get("train")), "both towers")]
    yield [
        "weights",
        f"{results.alpha:g} of the trained weights and {1 - results.alpha:g} of the base's"
        if results.alpha < 1
        else "the trained weights",
    ]
    pictures = {"training": data.train, "validation": data.validation, "test": data.test}
    yield [
        "pictures",
        ", ".join(f"{count:,} for {name}" for name, count in pictures.items() if count),
    ]
    if data.captions:
        yield ["distinct captions", f"{data.captions:,}"]
    if results.labels is not None:
        more = len(results.labels) - _LISTED
        listed = ", ".join(results.labels[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")
        yield ["labels", listed]
        yield ["template", f"`{results.settings['template']}`"]
    processes = f"{results.processes} process{'es' if results.processes > 1 else ''}"
    yield ["time", str(timedelta(seconds=round(results.seconds)))]
    yield ["hardware", f"{results.device}, {processes}"]
    yield ["software", ", ".join(f"{name} {value}" for name, value in results.versions.items())]


def _settings(results: Results) -> Iterator[list[str]]:
    for name, value in results.settings.items():
        if value is not None:
            yield [name, f"`{value}`"]


def _limits(results: Results) -> str:
    said = []
    if results.split == "validation":
        said.append(
            "There was no test split. The results are those of the validation split, which also "
            "decided the mixture, so they may be slightly too high."
        )
    if results.mixed.keep is None:
        said.append(
            "What the model has forgotten was not measured: on other pictures than those of the "
            "fine-tune, it may be worse than its base."
        )
    else:
        said.append(
            'What the model has forgotten was measured only on the pictures in the rows "not to '
            'forget".'
        )
    if results.labels is not None:
        said.append("A picture of none of the labels gets one of them all the same.")
    return " ".join(said)
