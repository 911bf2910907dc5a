"""Publishes a fine-tune: checked before a byte is sent, loaded back and compared after.

`model.push_to_hub` sends a model from memory; this takes what trainers leave on disk.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from hfclip.cards.card import About, model_card, read_metrics
from hfclip.cards.renewal import about_in, check_given, write_card
from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.errors import IntegrityError, PublishError
from hfclip.hub import push as pushing
from hfclip.hub.fetch import Access
from hfclip.hub.push import CardRule, Pushed, Repository
from hfclip.layouts.files import CARD_FILE
from hfclip.layouts.write import check_finite
from hfclip.model import CLIP
from hfclip.publishing.export import card_beside, write_checkpoint
from hfclip.publishing.published_card import Cards, find_base
from hfclip.sources.find import find

Status = Literal["published", "nothing changed", "dry run"]


@dataclass(frozen=True)
class Publication:
    """A model that has passed every check, in the folder that would be sent.

    Attributes:
        folder: The files, the card among them.
        paths: Those of them that would be sent.
        repository: Where to, as it is now.
        checkpoint: The model's configuration and tensors.
        layout: The layout of the folder.
        about: The licence, base, data and metrics that its card names.
        card: Where the text of the card comes from, in words.
        base: The base for a reader, if the card does not name it; else None.
    """

    folder: Path
    paths: list[Path]
    repository: Repository
    checkpoint: Checkpoint
    layout: str
    about: About
    card: str
    base: str | None = None

    def describe(self) -> dict[str, Any]:
        """Returns the plan of the publication, in types that JSON has."""
        config, about = self.checkpoint.config, self.about
        return {
            "repository": self.repository.repo_id,
            "stands_at": self.repository.head or "it will be made",
            "card": self.card,
            "image_tower": config.describe_image_tower(),
            "text_tower": config.describe_text_tower(),
            "pixels": config.image_resolution,
            "parameters": config.parameter_count,
            "layout": self.layout,
            "license": about.license or "none named",
            "fine-tuned_from": about.base_model or self.base or "not said",
            "datasets": list(about.datasets),
            "metrics": [f"{m.dataset}: {m.name} {m.value:g}" for m in about.metrics],
            "files": [f"{path.name} ({path.stat().st_size:,} bytes)" for path in self.paths],
        }


@dataclass(frozen=True)
class Published:
    """The outcome of `publish`.

    Attributes:
        plan: What was checked and where it goes, as `Publication.describe` returns it.
        status: "published"; "nothing changed" if the repository held the same files already; or
            "dry run".
        commit: The commit that holds the files; None after a dry run.
        url: The page of the commit, or of the pull request; None after a dry run.
        sent: The names of the files that were new or changed.
    """

    plan: dict[str, Any]
    status: Status
    commit: str | None
    url: str | None
    sent: list[str]

    @classmethod
    def of(cls, plan: dict[str, Any], pushed: Pushed) -> "Published":
        """Returns the outcome of a push."""
        status: Status = "published" if pushed.sent else "nothing changed"
        return cls(plan, status, pushed.commit, pushed.url, pushed.sent)


def publish(
    source: str | Path,
    repo_id: str,
    *,
    base: str | None = None,
    layout: str = "hfclip",
    license: str | None = None,  # noqa: A002  # the Hub's name for it
    datasets: Sequence[str] = (),
    metrics: str | Path | None = None,
    card: CardRule = "refuse",
    private: bool | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
    token: str | bool | None = None,
) -> Published:
    """Publishes a model on the Hub, as `hfclip publish` does on the command line.

    The model is checked, sent in one commit, loaded back from the Hub and compared to the bit:
    `hfclip.publish("last.pt", "me/my-clip", base="ViT-B/16", license="mit")`.

    Args:
        source: A weight file that a trainer left, a folder, or any other name that `hfclip.load`
            takes. The README.md of a folder becomes the card.
        repo_id: The repository: `org/name`, or a name in your own namespace.
        base: The model that `source` was fine-tuned from: a name, folder or repository. Needed for
            a lone weight file, which takes its configuration from it. Image size, context and
            vocabulary are read off the weights.
        layout: "hfclip", "open_clip" or "transformers"; hfclip loads each of them.
        license: A licence as the Hub names it. This and the next two go into the head of the card.
        datasets: What the model was trained on, as the Hub names it.
        metrics: A JSON file of figures: see `hfclip.cards.card.read_metrics`.
        card: What to do if a person wrote the README.md of the repository: "refuse", "keep" or
            "replace".
        private: Whether a repository that is made is private.
        create_pr: Whether to open a pull request instead of committing.
        dry_run: Whether to check everything and send nothing.
        token: A Hub token that may write; by default the stored one.

    Raises:
        ArgumentError: The Hub does not know the licence.
        PublishError: The weights are no numbers, compute none, or a README.md is in the way.
        CheckpointError: The weights are damaged or do not fit.
        ConfigError: The configuration or the metrics are refused.
        HubError: The repository cannot be written to; it is as it was.
    """
    with prepared(
        source,
        repo_id,
        base=base,
        layout=layout,
        license=license,
        datasets=datasets,
        metrics=metrics,
        card=card,
        create_pr=create_pr,
        token=token,
    ) as publication:
        plan = publication.describe()
        if dry_run:
            return Published(plan, "dry run", None, None, [])
        pushed = send(publication, private=private, create_pr=create_pr, token=token)
        return Published.of(plan, pushed)


@contextmanager
def prepared(
    source: str | Path,
    repo_id: str,
    *,
    base: str | None = None,
    layout: str = "hfclip",
    license: str | None = None,  # noqa: A002  # the Hub's name for it
    datasets: Sequence[str] = (),
    metrics: str | Path | None = None,
    card: CardRule = "refuse",
    create_pr: bool = False,
    token: str | bool | None = None,
) -> Iterator[Publication]:
    """Checks a model and writes the files to send into a temporary folder; sends nothing.

    The arguments and errors are those of `publish`.
    """
    given: dict[str, Any] = {"license": license, "datasets": datasets}
    check_given(given)
    checkpoint = read_finetune(source, base)
    _check_forward(checkpoint)
    given["metrics"] = read_metrics(Path(metrics), datasets) if metrics else []
    repository = pushing.find_repository(repo_id, token=token, create_pr=create_pr)
    origin = find_base(source, base, repository.repo_id)
    given |= {"repo_id": repository.repo_id, **origin.given}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_checkpoint(folder, checkpoint, layout)

        def generate(about: About) -> str:
            return str(model_card(folder, checkpoint.config, about, layout))

        cards = Cards(
            card_beside(source, checkpoint.path), pushing.read_card(repository, token=token)
        )
        chosen = cards.choose(card, given, generate, checkpoint.path)
        write_card(folder / CARD_FILE, chosen.text)
        paths = pushing.choose_files(folder, repository, chosen.rule)
        pushing.check_card(paths)
        yield Publication(
            folder=folder,
            paths=paths,
            repository=repository,
            checkpoint=checkpoint,
            layout=layout,
            about=about_in(chosen.text),
            card=chosen.origin,
            base=origin.note,
        )


def send(
    publication: Publication,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> Pushed:
    """Sends a model in one commit, then loads it from the Hub and compares its features to the bit.

    Raises:
        HubError: Sending failed, and the repository is as it was; or what came back differs.
    """
    pushed = pushing.push(
        publication.paths,
        publication.repository,
        message=f"Publish {publication.repository.repo_id.split('/')[-1]} with hfclip",
        private=private,
        create_pr=create_pr,
        token=token,
    )
    read_back(publication.checkpoint, pushed, token)
    return pushed


def read_finetune(source: str | Path, base: str | None) -> Checkpoint:
    """Reads what is to be published, with the configuration that its weights need.

    Raises:
        PublishError: A lone weight file without `base`; LoRA that was not merged.
        ConfigError: A folder of another architecture than `base`.
    """
    found = find(source, base=base)
    if found.config is None:
        raise PublishError(
            f"{source} is a lone weight file, which does not tell its activation or its "
            "preprocess. Say what it was fine-tuned from: --base ViT-B/16 on the command line, "
            'base="ViT-B/16" in Python.'
        )
    checkpoint = read_checkpoint(found)
    lora = [name for name in checkpoint.tensors if "lora_" in name.lower()]
    if lora:
        raise PublishError(
            f"{source} holds LoRA weights beside the model's ({lora[0]}). Merge them first, as "
            "`merge_and_unload` of peft does, and save the state dict again."
        )
    return checkpoint


def _check_forward(checkpoint: Checkpoint) -> None:
    """Refuses weights that do not fit, are no numbers, or compute none."""
    model = CLIP.from_checkpoint(checkpoint)
    check_finite(checkpoint.tensors)
    for title, features in _features(model).items():
        if not features.isfinite().all():
            raise PublishError(
                f"{checkpoint.path} computes NaN or infinity as {title} features, though its "
                "weights are finite: some are too large. Go back to an earlier checkpoint."
            )


@torch.no_grad()
def _features(model: CLIP) -> dict[str, Tensor]:
    """Features, in float32, of a batch that is the same each time."""
    config, random = model.config, torch.Generator().manual_seed(0)
    side = config.image_resolution
    images = torch.randn(2, 3, side, side, generator=random)
    texts = torch.randint(1, config.vocab_size - 1, (2, config.context_length), generator=random)
    texts[:, -1] = config.vocab_size - 1  # the end token is the last of a vocabulary
    model = model.float()
    return {"image": model.encode_image(images), "text": model.encode_text(texts)}


def read_back(checkpoint: Checkpoint, pushed: Pushed, token: str | bool | None) -> None:
    """Loads what was published as a stranger would, past every cache.

    Raises:
        IntegrityError: It computes something else.
        HubError: It cannot be had.
    """
    with TemporaryDirectory() as cache:
        access = Access(token, cache)
        source = find(pushed.repo_id, access, revision=pushed.commit)
        theirs = _features(CLIP.from_checkpoint(read_checkpoint(source)))
    ours = _features(CLIP.from_checkpoint(checkpoint))
    for title in ours:
        if not torch.equal(ours[title], theirs[title]):
            raise IntegrityError(
                f"{pushed.repo_id} at {pushed.commit} gives other {title} features than "
                f"{checkpoint.path}. Do not use that commit; publish again."
            )
