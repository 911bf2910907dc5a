"""Publishes converted folders in your own namespace on the Hub."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from tqdm import tqdm

from hfclip import __version__
from hfclip.cards.card import About, model_card
from hfclip.cards.renewal import fetch_card, read_card, write_card
from hfclip.checkpoints.finite import check_finite
from hfclip.checkpoints.fit import check_fit
from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.errors import ConfigError, HfclipError
from hfclip.hub import push as pushing
from hfclip.hub.push import CardRule, Repository
from hfclip.layouts.files import CARD_FILE
from hfclip.publishing import finetune as publishing
from hfclip.publishing.published_card import Cards
from hfclip.releases import RELEASES, repository_name
from hfclip.sources.find import find

TAG = f"v{__version__}"


def publish(folder: Path, namespace: str, *, private: bool, card: CardRule, dry_run: bool) -> str:
    """Sends a converted folder to `namespace/folder`, loads it back, compares it and tags it.

    Files that the repository already has are not sent again, so an interrupted run can be repeated.

    Returns:
        A summary in words.

    Raises:
        HfclipError: The folder has no valid model, or the Hub refuses the request.
    """
    checkpoint = read_checkpoint(find(folder))
    check_fit(checkpoint)
    check_finite(checkpoint.tensors)
    repository = pushing.find_repository(f"{namespace}/{folder.resolve().name}")
    message = f"Convert with hfclip {__version__}"
    with TemporaryDirectory() as temporary:
        part = Path(temporary)
        rule = _fill(part, folder, checkpoint, repository, card)
        paths = pushing.choose_files(part, repository, rule)
        if dry_run:
            return f"would send {', '.join(path.name for path in paths)}"
        pushed = pushing.push(paths, repository, message=message, private=private or None)
    publishing.read_back(checkpoint, pushed, None)
    pushing.tag(repository.repo_id, TAG, pushed.commit)
    sent = f"{len(pushed.sent)} files" if pushed.sent else "nothing new"
    return f"{sent}, {TAG} is {pushed.commit[:12]}"


def _fill(
    part: Path, folder: Path, checkpoint: Checkpoint, repository: Repository, rule: CardRule
) -> CardRule:
    """Links a folder's files into `part` and writes a card that names the repository.

    Returns:
        The action if the repository has a different README.md.
    """
    for path in folder.iterdir():
        if path.is_file() and path.name != CARD_FILE:
            (part / path.name).symlink_to(path.resolve())

    def generate(about: About) -> str:
        return str(model_card(part, checkpoint.config, about))

    cards = Cards(read_card(folder / CARD_FILE), fetch_card(repository))
    given = {"repo_id": repository.repo_id}
    chosen = cards.choose(rule, given, generate, checkpoint.path)
    write_card(part / CARD_FILE, chosen.text)
    return chosen.rule


def _folders(paths: tuple[Path, ...], publish_all: bool) -> list[Path]:
    if not publish_all:
        return list(paths)
    if len(paths) != 1:
        raise click.UsageError("With --all, give one folder: the OUT of `convert --all`.")
    folders = [paths[0] / repository_name(name) for name in RELEASES]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        raise ConfigError(
            f"{paths[0]} lacks {', '.join(missing)}. Convert them first: "
            f"`python -m conversion convert --all {paths[0]}`."
        )
    return folders


@click.command(
    epilog="Examples: python -m conversion publish out/ViT-B-32 --namespace me; "
    "python -m conversion publish --all out --namespace me --dry-run"
)
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--all", "publish_all", is_flag=True, help="Publish the nine releases in FOLDER.")
@click.option("--namespace", required=True, help="Your account or organization on the Hub.")
@click.option("--private", is_flag=True, help="Make new repositories private.")
@click.option(
    "--replace-card",
    "card",
    flag_value="replace",
    help="Replace a README.md in the repository that a person wrote.",
)
@click.option(
    "--keep-card",
    "card",
    flag_value="keep",
    help="Keep a README.md in the repository that a person wrote; only hfclip's table of files in "
    "it is updated.",
)
@click.option("--dry-run", is_flag=True, help="Check everything and send nothing.")
def main(
    folders: tuple[Path, ...],
    publish_all: bool,
    namespace: str,
    private: bool,
    card: CardRule | None,
    dry_run: bool,
) -> None:
    """Publish converted FOLDERS on the Hub.

    Each folder is sent in one commit to NAMESPACE/FOLDER, loaded back and compared bit for bit. Log
    in first with `hf auth login`, or set HF_TOKEN. Afterwards, with HFCLIP_NAMESPACE set to the
    namespace, hfclip loads the nine releases from there.
    """
    failed = 0
    try:
        chosen = _folders(folders, publish_all)
    except HfclipError as error:
        raise click.ClickException(str(error)) from error
    for folder in tqdm(chosen, unit="model", disable=None if len(chosen) > 1 else True):
        try:
            done = publish(
                folder, namespace, private=private, card=card or "refuse", dry_run=dry_run
            )
        except HfclipError as error:
            failed += 1
            done = f"failed: {error}"
        click.echo(f"{namespace}/{folder.resolve().name}  {done}")
    sys.exit(1 if failed else 0)
