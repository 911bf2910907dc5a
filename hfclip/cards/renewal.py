"""Updates a README.md when the files beside it are written again.

- A generated card that nobody has edited is generated again, with the facts in its seal, such as
  the licence.
- In a card that a person has edited, only the marked table of files is updated.
- A README.md without marks is not changed.

Values that the caller gives are always written. In a card that a person wrote or edited, they go
into the head.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hfclip.cards import marks as card_marks
from hfclip.cards.card import About, Metric, card_data, file_row
from hfclip.cards.licenses import check_license
from hfclip.errors import ArgumentError, ConfigError
from hfclip.hub import fetch as hub
from hfclip.hub.fetch import Access
from hfclip.hub.push import Repository
from hfclip.layouts.files import CARD_FILE

logger = logging.getLogger(__name__)

# The key in the seal of a card for one of OpenAI's models, whose weights are unchanged.
RELEASE = "release"
# The parts of a release's card that change when the folder is published as a repository.
LOCAL_PLACE = 'hfclip.load("."'
LOCAL_HINT = ", in the folder that holds this file"

# The fields of About that are in the head, with the Hub's names for them.
_HEAD_NAMES = {
    "license": ("license",),
    "base_model": ("base_model", "base_model_relation"),
    "datasets": ("datasets",),
    "metrics": ("model-index",),
}


def read_card(path: Path) -> str | None:
    """Reads a README.md; returns None if there is no file.

    Bytes that are not UTF-8 are kept: `write_card` writes the same bytes.

    Raises:
        ConfigError: The file cannot be read.
    """
    if not path.is_file():
        return None
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error


def write_card(path: Path, text: str) -> None:
    """Writes a text that `read_card` or `renewed` returned."""
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def check_given(given: Mapping[str, Any]) -> None:
    """Checks the values that a caller gives for a card.

    Raises:
        ArgumentError: A name is not a field of `About`, or the Hub does not know the licence.
    """
    known = [each.name for each in fields(About)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ArgumentError(
            f"A model card has no field {unknown[0]!r}; the fields are {', '.join(known)}."
        )
    if given.get("license"):
        check_license(given["license"])


def is_generated(text: str) -> bool:
    """Returns whether hfclip generated the card and nobody has edited it."""
    return card_marks.unseal(text)[0]


def about_in(text: str) -> About:
    """Reads the facts of a card: from its seal if it is unedited, else from its head."""
    is_whole, values = card_marks.unseal(text)
    if is_whole and values is not None:
        return _about(values)
    return _about_of_head(card_marks.head(text))


def renewed(
    earlier: str | None,
    given: Mapping[str, Any],
    generate: Callable[[About], str],
    weights: Path,
    defaults: About | None = None,
) -> str:
    """Returns the updated card for files that were written again.

    Args:
        earlier: The present card, or None.
        given: Fields of `About` to set. Empty values count as not given.
        generate: A function that generates the card of the new files.
        weights: The weight file that the new card describes. If the earlier card describes other
            weights, its metrics and provenance are dropped.
        defaults: Facts to use where neither `given` nor `earlier` has them.

    Raises:
        ArgumentError: See `check_given`.
        ConfigError: The head of the earlier card is not YAML.
    """
    check_given(given)
    given = {name: value for name, value in given.items() if value}
    if "base_model" in given:
        given = {"relation": "finetune", **given}
    if earlier is None:
        return generate(_filled(About(**given), defaults))
    is_whole, values = card_marks.unseal(earlier)
    if not is_whole:
        table = generate(About(**given)) if card_marks.files_table(earlier) is not None else ""
        return card_marks.with_head(card_marks.with_files_of(earlier, table), _head(given))
    about, is_described = _about(values or {}), _describes(earlier, weights)
    if is_described and RELEASE in (values or {}):
        return _renewed_release(earlier, given, generate)
    if not is_described:
        about = _without_measurements(about, given)
    provenance = {**about.provenance, **given.get("provenance", {})}
    return generate(_filled(replace(about, **{**given, "provenance": provenance}), defaults))


def _renewed_release(card: str, given: Mapping[str, Any], generate: Callable[[About], str]) -> str:
    """Updates the card of one of OpenAI's models, which comes from another template."""
    values = card_marks.unseal(card)[1]
    text = card_marks.with_files_of(card_marks.unsealed(card), generate(About()))
    if given.get("repo_id"):
        text = text.replace(LOCAL_PLACE, f'hfclip.load("{given["repo_id"]}"')
        text = text.replace(LOCAL_HINT, "")
    return card_marks.seal(card_marks.with_head(text, _head(given)), values)


def _describes(card: str, weights: Path) -> bool:
    """Returns whether the card's table of files has the sha256 of the weights."""
    return file_row(weights)["sha256"] in (card_marks.files_table(card) or "")


def _without_measurements(about: About, given: Mapping[str, Any]) -> About:
    if about.metrics and "metrics" not in given:
        logger.warning(
            "The metrics in README.md were measured with other weights, so the new card omits "
            "them. Give the metrics of the new weights."
        )
    return replace(about, metrics=(), provenance={}, tables=(), limits=None)


def _filled(about: About, defaults: About | None) -> About:
    """Fills in missing facts from `defaults`, but only those that do not depend on the weights."""
    if defaults is None:
        return about
    names = ["license", "datasets", "description"]
    if not about.base_model:
        about = replace(about, base_model=defaults.base_model, relation=defaults.relation)
    missing = {name: getattr(defaults, name) for name in names if not getattr(about, name)}
    return replace(about, **missing)


def _head(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the given fields of `About` under the names that they have in the head."""
    data = card_data(About(**given)).to_dict()  # type: ignore[no-untyped-call]
    names = [name for key in given for name in _HEAD_NAMES.get(key, ())]
    return {name: data[name] for name in names if name in data}


def _about(values: Mapping[str, Any]) -> About:
    """Builds `About` from the values of a seal; ignores fields of later versions."""
    known = {each.name for each in fields(About)}
    return About(**{name: value for name, value in values.items() if name in known})


def _about_of_head(head: Mapping[str, Any]) -> About:
    base, datasets = head.get("base_model"), head.get("datasets")
    licence = head.get("license")
    return About(
        license=", ".join(map(str, _listed(licence))) or None,
        base_model=", ".join(map(str, _listed(base))) or None,
        datasets=[str(dataset) for dataset in _listed(datasets)],
        metrics=list(_metrics_of_head(head)),
    )


def _metrics_of_head(head: Mapping[str, Any]) -> list[Metric]:
    """Reads the results in a head, up to the first that is not in the Hub's form."""
    found = []
    try:
        for model in head.get("model-index") or []:
            for result in model["results"]:
                for metric in result["metrics"]:
                    name, dataset = str(metric["type"]), str(result["dataset"]["name"])
                    found.append(Metric(dataset, name, float(metric["value"])))
    except (KeyError, TypeError, ValueError):
        return found
    return found


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def fetch_card(repository: Repository, *, token: str | bool | None = None) -> str | None:
    """Fetches the text of a repository's README.md, or None if it has none.

    Raises:
        HubError: The file cannot be fetched.
    """
    if repository.head is None or CARD_FILE not in repository.files:
        return None
    snapshot = hub.resolve(repository.repo_id, repository.head, Access(token))
    return read_card(hub.fetch(snapshot, CARD_FILE))
