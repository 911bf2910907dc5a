"""Publishes a fine-tuned model: checks it, sends it, loads it back and compares it.

This module takes the files that a training program wrote. `model.push_to_hub` sends a model from
memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from hfclip.cards.card import About, model_card, read_metrics
from hfclip.cards.renewal import about_in, check_given, fetch_card, write_card
from hfclip.checkpoints.finite import check_finite
from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.errors import HfclipError, IntegrityError, PublishError
from hfclip.hub import push as pushing
from hfclip.hub.fetch import Access
from hfclip.hub.push import CardRule, Pushed, Repository
from hfclip.layouts.files import CARD_FILE
from hfclip.model import CLIP
from hfclip.publishing.companions import copy_companions
from hfclip.publishing.export import card_beside, write_checkpoint
from hfclip.publishing.outcome import Published
from hfclip.publishing.published_card import Cards, find_base
from hfclip.publishing.space import Space, find_space, send_space
from hfclip.publishing.space_files import SpaceModel
from hfclip.sources.find import find


@dataclass(frozen=True)
class Publication:
    """A model that has passed every check, and the folder of files to send.

    Attributes:
        folder: The folder with the files, including the card.
        paths: The files in `folder` that would be sent.
        repository: The repository to send to, with its present commit.
        checkpoint: The model's configuration and tensors.
        layout: The layout of the folder.
        about: The licence, base model, datasets and metrics of the card.
        card: Where the text of the card comes from, in words.
        base: The base model in words, if the card does not name it; else None.
        removed: The files of an earlier model in the repository that would be deleted.
    """

    folder: Path
    paths: list[Path]
    repository: Repository
    checkpoint: Checkpoint
    layout: str
    about: About
    card: str
    base: str | None = None
    removed: Sequence[str] = ()

    def describe(self) -> dict[str, Any]:
        """Returns the plan of the publication in JSON types."""
        config, about = self.checkpoint.config, self.about
        resized = config.describe_preprocess()
        plan: dict[str, Any] = {
            "repository": self.repository.repo_id,
            "current_commit": self.repository.head or "not created yet",
            "card": self.card,
            "image_tower": config.describe_image_tower(),
            "text_tower": config.describe_text_tower(),
            "pixels": config.image_resolution,
            **({"preprocess": resized} if resized else {}),
            "parameters": config.parameter_count,
            "layout": self.layout,
            "license": about.license or "not given",
            "fine-tuned_from": about.base_model or self.base or "not given",
            "datasets": list(about.datasets),
            "metrics": [f"{m.dataset}: {m.name} {m.value:g}" for m in about.metrics],
            "files": [f"{path.name} ({path.stat().st_size:,} bytes)" for path in self.paths],
        }
        return plan | ({"removed": list(self.removed)} if self.removed else {})


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
    subfolder: str | None = None,
    variant: str | None = None,
    space: str | None = None,
    replace_space: bool = False,
    hfclip_from: str | Path | None = None,
) -> Published:
    """Publishes a model on the Hub, like the command `hfclip publish`.

    Checks the model, sends it in one commit, loads it back from the Hub and compares the features
    bit for bit. From a folder that `hfclip finetune` wrote, the labels, finetune.json, log.jsonl
    and curves.png are sent too, but no checkpoint. If the model has no labels, the labels of an
    earlier model in the repository are deleted in the same commit.

    Args:
        source: The weight file of a fine-tuned model, a folder, or any other name that
            `hfclip.load` takes. The README.md of a folder becomes the card.
        repo_id: The repository: `org/name`, or a name in your own namespace.
        base: The model that `source` was fine-tuned from: a name, folder or repository. A weight
            file without a configuration needs it and takes its configuration from it. Image size,
            context length and vocabulary size are read from the weights.
        layout: "hfclip", "open_clip" or "transformers". hfclip loads each of them.
        license: The Hub's identifier of the licence. `license`, `datasets` and `metrics` go into
            the head of the card.
        datasets: The Hub's names of the training datasets.
        metrics: A JSON file of metrics: see `hfclip.cards.read_metrics`.
        card: The action if a person wrote the README.md in the repository: "refuse", "keep" or
            "replace".
        private: Whether a new repository is private.
        create_pr: If True, opens a pull request instead of committing.
        dry_run: If True, checks everything and sends nothing.
        token: A Hub token that may write; by default the stored token.
        subfolder: The folder inside `source` that holds the model, as in `hfclip.load`.
        variant: The variant of the weights of `source`, such as "fp16", as in `hfclip.load`. They
            are published under the layout's standard name.
        space: A Space to publish too: a page to try the model at the commit of this publication,
            as `publish_space` makes it. `private`, `create_pr` and `dry_run` apply to both.
        replace_space: Whether to replace files of the Space that hfclip did not write, or that
            were edited.
        hfclip_from: Where the Space installs hfclip from, as in `publish_space`.

    Raises:
        ArgumentError: The Hub does not know the licence, or `hfclip_from` is neither an address
            nor a wheel.
        PublishError: The weights or features contain NaN or infinity, or `card` is "refuse" and
            the repository has a different README.md. The Space may not be written, or the model was
            published but the Space was not.
        CheckpointError: The weights are damaged or do not fit.
        ConfigError: The configuration or the metrics are not valid.
        HubError: The repository cannot be written to. It is unchanged.

    Example:
        >>> hfclip.publish("last.pt", "me/my-clip", base="ViT-B/16", license="mit")
    """
    page = None
    if space is not None:
        page = find_space(
            space,
            hfclip_from=hfclip_from,
            replace=replace_space,
            private=private,
            create_pr=create_pr,
            token=token,
        )
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
        subfolder=subfolder,
        variant=variant,
    ) as publication:
        if dry_run:
            return dry_outcome(publication, page, private=private)
        return send_all(publication, page, private=private, create_pr=create_pr, token=token)


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
    subfolder: str | None = None,
    variant: str | None = None,
) -> Iterator[Publication]:
    """Checks a model and writes the files to send into a temporary folder. Sends nothing.

    See `publish` for the arguments and errors.
    """
    given: dict[str, Any] = {"license": license, "datasets": datasets}
    check_given(given)
    checkpoint = read_finetune(source, base, subfolder, variant)
    _check_forward(checkpoint)
    given["metrics"] = read_metrics(Path(metrics), datasets) if metrics else []
    repository = pushing.find_repository(repo_id, token=token, create_pr=create_pr)
    origin = find_base(source, base, repository.repo_id)
    given |= {"repo_id": repository.repo_id, **origin.given}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_checkpoint(folder, checkpoint, layout)
        copy_companions(source, checkpoint.path, folder)

        def generate(about: About) -> str:
            return str(model_card(folder, checkpoint.config, about, layout))

        cards = Cards(card_beside(source, checkpoint.path), fetch_card(repository, token=token))
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
            removed=pushing.stale_labels(repository, folder, token=token),
        )


def space_plan(
    publication: Publication, space: Space, *, private: bool | None = None
) -> dict[str, Any]:
    """Returns the plan of the Space of a publication in JSON types."""
    model = publication.repository
    needs_token = model.is_private or (model.head is None and bool(private))
    return space.describe(f"{model.repo_id} at the commit of this publication", needs_token)


def dry_outcome(
    publication: Publication, space: Space | None = None, *, private: bool | None = None
) -> Published:
    """Returns the outcome of a publication that is not sent."""
    page = None
    if space is not None:
        page = Published.dry(space_plan(publication, space, private=private))
    return Published.dry(publication.describe(), page)


def send_all(
    publication: Publication,
    space: Space | None = None,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> Published:
    """Sends a model as `send` does, then its Space if there is one.

    Raises:
        HubError: See `send`.
        PublishError: The model was published, but the Space was not.
    """
    plan = publication.describe()
    pushed = send(publication, private=private, create_pr=create_pr, token=token)
    if space is None:
        return Published.of(plan, pushed)
    model = SpaceModel(pushed.repo_id, pushed.repo_id, pushed.commit)
    words = space_plan(publication, space, private=private)
    try:
        page = send_space(space, model, words, private=private, create_pr=create_pr, token=token)
    except HfclipError as error:
        raise PublishError(
            f"{pushed.repo_id} was published at {pushed.commit}, but its Space was not: {error} To "
            f"publish only the Space: hfclip app {model.place} --push {space.repository.repo_id}"
        ) from error
    return Published.of(plan, pushed, page)


def send(
    publication: Publication,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> Pushed:
    """Sends a model in one commit, loads it from the Hub and compares the features bit for bit.

    Raises:
        HubError: Sending failed and the repository is unchanged, or the loaded model differs.
    """
    pushed = pushing.push(
        publication.paths,
        publication.repository,
        delete=publication.removed,
        message=f"Publish {publication.repository.repo_id.split('/')[-1]} with hfclip",
        private=private,
        create_pr=create_pr,
        token=token,
    )
    read_back(publication.checkpoint, pushed, token)
    return pushed


def read_finetune(
    source: str | Path,
    base: str | None,
    subfolder: str | None = None,
    variant: str | None = None,
) -> Checkpoint:
    """Reads the model to publish and its configuration.

    Raises:
        PublishError: `base` is missing for a weight file without a configuration, or the file
            contains unmerged LoRA weights.
        ConfigError: The folder has another architecture than `base`.
    """
    found = find(source, base=base, subfolder=subfolder, variant=variant)
    if found.config is None:
        raise PublishError(
            f"{source} is a weight file without a configuration, so its activation and preprocess "
            "are unknown. Give the model that it was fine-tuned from: --base ViT-B/16 on the "
            'command line, base="ViT-B/16" in Python.'
        )
    checkpoint = read_checkpoint(found)
    lora = [name for name in checkpoint.tensors if "lora_" in name.lower()]
    if lora:
        raise PublishError(
            f"{source} contains LoRA weights such as {lora[0]}. Merge them into the model first, "
            "for example with `merge_and_unload` of peft, and save the state dict again."
        )
    return checkpoint


def _check_forward(checkpoint: Checkpoint) -> None:
    """Checks that the weights fit, and that weights and features are finite."""
    model = CLIP.from_checkpoint(checkpoint)
    check_finite(checkpoint.tensors)
    for title, features in _features(model).items():
        if not features.isfinite().all():
            raise PublishError(
                f"The weights of {checkpoint.path} are finite, but the {title} features contain "
                "NaN or infinity: some weights are too large. Use an earlier checkpoint."
            )


@torch.no_grad()
def _features(model: CLIP) -> dict[str, Tensor]:
    """Returns the float32 features (2, embed_dim) of two fixed images and two fixed texts."""
    config, random = model.config, torch.Generator().manual_seed(0)
    side = config.image_resolution
    images = torch.randn(2, 3, side, side, generator=random)
    texts = torch.randint(1, config.vocab_size - 1, (2, config.context_length), generator=random)
    texts[:, -1] = config.vocab_size - 1  # the end token has the last id
    model = model.float()
    return {"image": model.encode_image(images), "text": model.encode_text(texts)}


def read_back(checkpoint: Checkpoint, pushed: Pushed, token: str | bool | None) -> None:
    """Loads the published model into an empty cache and compares its features bit for bit.

    Raises:
        IntegrityError: The features differ.
        HubError: The model cannot be fetched.
    """
    with TemporaryDirectory() as cache:
        access = Access(token, cache)
        source = find(pushed.repo_id, access, revision=pushed.commit)
        theirs = _features(CLIP.from_checkpoint(read_checkpoint(source)))
    ours = _features(CLIP.from_checkpoint(checkpoint))
    for title in ours:
        if not torch.equal(ours[title], theirs[title]):
            raise IntegrityError(
                f"{pushed.repo_id} at {pushed.commit} gives different {title} features from "
                f"{checkpoint.path}. Do not use that commit. Publish again."
            )
