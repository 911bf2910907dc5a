"""Chooses the README.md of a published model and the base model that it names."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hfclip.cards import marks as card_marks
from hfclip.cards.card import About
from hfclip.cards.renewal import about_in, is_generated, renewed
from hfclip.hub.push import CardRule
from hfclip.publishing.export import is_local
from hfclip.releases import BUNDLED, RELEASES, repository_name
from hfclip.sources.naming import spelled


class ChosenCard(NamedTuple):
    """A card that is ready to be sent.

    Attributes:
        text: The card.
        origin: Where the text comes from, as the plan shows it.
        rule: The action if the repository has a different README.md.
    """

    text: str
    origin: str
    rule: CardRule


@dataclass(frozen=True)
class Cards:
    """The cards that exist before a model is published.

    Attributes:
        ours: The card in the folder of the model, or None.
        theirs: The card in the repository, or None.
    """

    ours: str | None
    theirs: str | None

    def choose(
        self,
        rule: CardRule,
        given: Mapping[str, Any],
        generate: Callable[[About], str],
        weights: Path,
    ) -> ChosenCard:
        """Chooses between these cards and a new one.

        A generated card in the repository is replaced, whatever the rule. Its licence, base model
        and datasets are kept unless others are given.

        Args:
            rule: The action if a person wrote the card in the repository.
            given: Fields of `About` to set.
            generate: A function that generates the card of the files to send.
            weights: The weight file to publish.
        """
        defaults = None
        if self.theirs is not None:
            if is_generated(self.theirs):
                defaults, rule = about_in(self.theirs), "replace"
            elif rule == "keep":
                text = renewed(self.theirs, {}, generate, weights)
                return ChosenCard(text, "the README.md of the repository", "replace")
        text = renewed(self.ours, given, generate, weights, defaults)
        return ChosenCard(text, self._origin(text), rule)

    def _origin(self, text: str) -> str:
        if self.ours is None:
            return "generated"
        if is_generated(self.ours):
            return "generated, with the facts of the folder's README.md"
        before, after = card_marks.head(self.ours), card_marks.head(text)
        changed = [name for name in after if after[name] != before.get(name)]
        suffix = f", with another {', '.join(changed)} in its head" if changed else ""
        return f"the README.md of the folder{suffix}"


class Base(NamedTuple):
    """The model that another model was made from.

    Attributes:
        given: The fields of `About` that name the base.
        note: The text for the plan if the card cannot link the base; else None.
    """

    given: Mapping[str, Any]
    note: str | None = None


def find_base(source: str | Path, base: str | Path | None, repo_id: str) -> Base:
    """Returns the base of a model: `base`, or if it is None, the repository that `source` names.

    The card never contains a local path.

    Args:
        source: The model to publish.
        base: The model that `source` was fine-tuned from, or None.
        repo_id: The repository to publish to.
    """
    if base is None:
        origin = hub_name(source)
        is_copy = origin is not None and origin != repo_id
        return Base({"base_model": origin, "relation": "copy"} if is_copy else {})
    if base in BUNDLED:
        words = f"`{base}`, a model inside the package hfclip"
        return Base({"provenance": {"fine-tuned from": words}}, words)
    if is_local(base):
        return Base({}, f"{base} (a local path, which the card omits)")
    return Base({"base_model": hub_name(base)})


def hub_name(name: str | Path) -> str | None:
    """Returns the Hub repository of a model name, or None for a local or bundled model.

    Accepts every name that `hfclip.load` accepts.
    """
    name, _ = spelled(name)
    if name in BUNDLED or is_local(name):
        return None
    if name in RELEASES:
        namespace = os.environ.get("HFCLIP_NAMESPACE")
        ours = f"{namespace}/{repository_name(str(name))}"
        return ours if namespace else RELEASES[str(name)].hub.repo_id
    return str(name).removeprefix("hf-hub:").split("@")[0]
