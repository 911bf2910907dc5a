"""Publishes a fine-tune: checked before a byte is sent, loaded back and compared after.

`model.push_to_hub` sends a model from memory; this takes what trainers leave on disk.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from hfclip import pushing, sources
from hfclip.cards import About, model_card, read_metrics
from hfclip.checkpoint import Checkpoint, read_checkpoint
from hfclip.errors import IntegrityError, PublishError
from hfclip.exporting import write_checkpoint
from hfclip.folders import CARD_FILE, check_finite
from hfclip.hub import Access
from hfclip.model import CLIP
from hfclip.pushing import CardRule, Pushed, Repository
from hfclip.releases import BUNDLED, RELEASES


@dataclass(frozen=True)
class Publication:
    """A model that has passed every check, in the folder that would be sent.

    Attributes:
        folder: The files, the card among them.
        paths: Those of them that would be sent.
        repository: Where to, as it is now.
        checkpoint: The model's configuration and tensors.
        layout: The layout of the folder.
        about: What its card says beyond the weights.
    """

    folder: Path
    paths: list[Path]
    repository: Repository
    checkpoint: Checkpoint
    layout: str
    about: About

    def describe(self) -> dict[str, Any]:
        """What will be sent, and where to, in types that JSON has."""
        config, about = self.checkpoint.config, self.about
        return {
            "repository": self.repository.repo_id,
            "stands_at": self.repository.head or "it will be made",
            "image_tower": config.describe_image_tower(),
            "text_tower": config.describe_text_tower(),
            "pixels": config.image_resolution,
            "parameters": config.parameter_count,
            "layout": self.layout,
            "license": about.license or "none named",
            "fine-tuned_from": about.base_model or "not said",
            "datasets": list(about.datasets),
            "metrics": [f"{m.dataset}: {m.name} {m.value:g}" for m in about.metrics],
            "files": [f"{path.name} ({path.stat().st_size:,} bytes)" for path in self.paths],
        }


@contextmanager
def prepared(
    source: str | Path,
    repo_id: str,
    *,
    base: str | None = None,
    layout: str = "hfclip",
    license: str | None = None,  # noqa: A002  # the Hub's name for it
    datasets: Sequence[str] = (),
    metrics: Path | None = None,
    card: CardRule = "refuse",
    create_pr: bool = False,
    token: str | bool | None = None,
) -> Iterator[Publication]:
    """Checks a model and writes what would be sent into a folder of its own; sends nothing.

    Args:
        source: A weight file that a trainer left, a folder, or whatever `hfclip.load` takes.
        repo_id: Where to: `org/name`, or a name in your own namespace.
        base: What it was fine-tuned from; needed for a lone weight file, whose configuration it
            gives. Image size, context and vocabulary are read off the weights.
        layout: "hfclip", or that of another package, which can then load it as well.
        license: A licence as the Hub names it.
        datasets: What it was trained on, as the Hub names it.
        metrics: A JSON file of figures: see `hfclip.cards.read_metrics`.
        card: What to do where the repository has another README.md.
        create_pr: Whether a pull request is meant.
        token: A Hub token that may write; by default the stored one.

    Raises:
        PublishError: The weights are no numbers, compute none, or a README.md is in the way.
        CheckpointError: The weights are damaged or do not fit.
        ConfigError: The configuration or the metrics are refused.
        HubError: The repository cannot be written to.
    """
    checkpoint = read_finetune(source, base)
    _check_forward(checkpoint)
    figures = read_metrics(metrics, datasets) if metrics else []
    repository = pushing.find_repository(repo_id, token=token, create_pr=create_pr)
    about = About(
        repo_id=repository.repo_id,
        license=license,
        base_model=base and _base_model(base),
        datasets=datasets,
        metrics=figures,
    )
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_checkpoint(folder, checkpoint, layout)
        model_card(folder, checkpoint.config, about, layout).save(folder / CARD_FILE)
        paths = pushing.choose_files(folder, repository, card)
        yield Publication(folder, paths, repository, checkpoint, layout, about)


def send(
    publication: Publication,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> Pushed:
    """Sends it in one commit, then loads it from the Hub and compares its features to the bit.

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
    found = sources.find(source, base=base)
    if found.config is None:
        raise PublishError(
            f"{source} is a lone weight file, which does not tell its activation or its "
            "preprocess. Say what it was fine-tuned from, as in --base ViT-B/16."
        )
    checkpoint = read_checkpoint(found)
    lora = [name for name in checkpoint.tensors if "lora_" in name.lower()]
    if lora:
        raise PublishError(
            f"{source} holds LoRA weights beside the model's ({lora[0]}). Merge them first, as "
            "`merge_and_unload` of peft does, and save the state dict again."
        )
    return checkpoint


def _base_model(base: str) -> str | None:
    """The base as the Hub names it, if it is there."""
    if base in RELEASES:
        return RELEASES[base].hub.repo_id
    if base in BUNDLED or Path(base).expanduser().exists():
        return None
    return base.removeprefix("hf-hub:").split("@")[0]


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
        source = sources.find(pushed.repo_id, access, revision=pushed.commit)
        theirs = _features(CLIP.from_checkpoint(read_checkpoint(source)))
    ours = _features(CLIP.from_checkpoint(checkpoint))
    for title in ours:
        if not torch.equal(ours[title], theirs[title]):
            raise IntegrityError(
                f"{pushed.repo_id} at {pushed.commit} gives other {title} features than "
                f"{checkpoint.path}. Do not use that commit; publish again."
            )
