"""`hfclip export` and `publish`: writes models for other packages and sends them to the Hub."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hfclip.cli.completion import complete_models
from hfclip.cli.output import print_facts
from hfclip.errors import HfclipError

if TYPE_CHECKING:
    from hfclip.hub.push import CardRule


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(["hfclip", "open_clip", "transformers", "openai", "onnx"]),
    required=True,
    help="Whose layout to write.",
)
@click.option(
    "--base", help="What a weight file was fine-tuned from: a name, folder or repository."
)
@click.option("--revision", help="A branch, tag or commit, of a repository.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def export(
    model: str, folder: Path, layout: str, base: str | None, revision: str | None, force: bool
) -> None:
    """Write MODEL into FOLDER as another package reads it, bit for bit.

    open_clip and transformers (ViTs only) load the folder by its path; openai is a state dict that
    `clip.load` takes; onnx adds a graph of each tower to hfclip's own layout. What was exported can
    be exported again, back to hfclip's layout with the same bytes of weights.

    \b
    Examples:
      hfclip export ViT-B/32 clip-b32 --layout transformers
      hfclip export clip-b32 back --layout hfclip
    """  # noqa: D301  # \b is click's own mark
    from hfclip.publishing.export import export as export_model  # noqa: PLC0415

    export_model(model, folder, layout, force=force, revision=revision, base=base)
    for path in sorted(folder.iterdir()):
        click.echo(f"{path.stat().st_size:>15,}  {path}")


@click.command()
@click.argument("source", shell_complete=complete_models)
@click.argument("repository")
@click.option(
    "--base",
    shell_complete=complete_models,
    help="What it was fine-tuned from: a name, folder or repository.",
)
@click.option(
    "--layout",
    type=click.Choice(["hfclip", "open_clip", "transformers"]),
    default="hfclip",
    show_default=True,
    help="Whose layout to send; hfclip loads each of them.",
)
@click.option("--license", "license_name", help="As the Hub names it: mit, apache-2.0, ...")
@click.option("--dataset", "datasets", multiple=True, help="What it was trained on. Repeatable.")
@click.option(
    "--metrics",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='A JSON file, {"accuracy": 0.9} or {"dataset": {"accuracy": 0.9}}.',
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option(
    "--replace-card",
    "card",
    flag_value="replace",
    help="Overwrite a README.md of the repository that a person wrote.",
)
@click.option(
    "--keep-card",
    "card",
    flag_value="keep",
    help="Keep it; only a table of files that hfclip wrote there is renewed.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, show it, send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def publish(
    source: str,
    repository: str,
    private: bool,
    create_pr: bool,
    dry_run: bool,
    as_json: bool,
    card: "CardRule | None",
    **about: Any,
) -> None:
    """Publish a fine-tuned CLIP on the Hub.

    SOURCE is a weight file that a trainer left (with --base), or a folder, whose README.md becomes
    the card: --license, --base, --dataset and --metrics change the head of it. The model is
    checked, sent in one commit, loaded back and compared. Log in first with `hf auth login`, or set
    HF_TOKEN.

    With --json, standard output is one object with a "status": "published", "nothing changed",
    "dry run" or "failed".

    \b
    Examples:
      hfclip publish last.pt me/my-clip --base ViT-B/16 --license mit --dry-run
      hfclip publish folder/ me/my-clip --layout transformers --metrics results.json
    """  # noqa: D301  # \b is click's own mark
    about["license"] = about.pop("license_name")
    about |= {"card": card or "refuse", "create_pr": create_pr}
    try:
        _publish(source, repository, private, dry_run, as_json, about)
    except HfclipError as error:
        if as_json:
            kind = {"type": type(error).__name__, "message": str(error)}
            click.echo(json.dumps({"status": "failed", "error": kind}, indent=2))
        raise


def _publish(
    source: str,
    repository: str,
    private: bool,
    dry_run: bool,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    """Shows the plan before anything is sent, and the outcome after."""
    from hfclip.publishing import finetune as publishing  # noqa: PLC0415

    with publishing.prepared(source, repository, **options) as publication:
        plan = publication.describe()
        if not as_json:
            print_facts(plan)
        outcome = publishing.Published(plan, "dry run", None, None, [])
        if not dry_run:
            pushed = publishing.send(
                publication, private=private or None, create_pr=options["create_pr"]
            )
            outcome = publishing.Published.of(plan, pushed)
    if as_json:
        values = {name: getattr(outcome, name) for name in ("status", "commit", "url", "sent")}
        click.echo(json.dumps(plan | values, indent=2))
    else:
        click.echo(_SUMMARIES[outcome.status].format(outcome.url))


_SUMMARIES = {
    "dry run": "nothing was sent",
    "published": "published      {}",
    "nothing changed": "nothing changed: {} holds these files already",
}
