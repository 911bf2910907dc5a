"""The commands `hfclip export` and `hfclip publish`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hfclip.cli.completion import complete_models
from hfclip.cli.output import print_facts
from hfclip.cli.part_options import part_options
from hfclip.cli.space_options import SUMMARIES, print_space, space_options
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
    help="Layout to write.",
)
@click.option(
    "--base", help="Model that a weight file was fine-tuned from: a name, folder or repository."
)
@click.option(
    "--revision",
    help="Branch, tag or commit of a repository; by default the pinned commit of a release, else "
    "main.",
)
@click.option(
    "--namespace",
    help="The account whose copies of the nine releases are used. Default: HFCLIP_NAMESPACE.",
)
@part_options
@click.option("--force", is_flag=True, help="Replace existing files.")
def export(model: str, folder: Path, layout: str, force: bool, **options: Any) -> None:
    """Write MODEL into FOLDER in the layout of another package.

    MODEL is a name that `hfclip models` lists, a repository on the Hub, a folder or a weight file.
    The weights stay the same, bit for bit, so an export can be exported back.

    \b
    Layouts:
      hfclip        hfclip loads the folder
      open_clip     open_clip and hfclip load the folder
      transformers  transformers and hfclip load the folder; ViTs only
      openai        a state dict in model.pt, for `clip.load` and hfclip
      onnx          hfclip's layout plus an ONNX graph of each tower

    \b
    Examples:
      hfclip export ViT-B/32 clip-b32 --layout transformers
      hfclip export clip-b32 back --layout hfclip
    """  # noqa: D301  # \b is click's mark for text that it does not wrap
    from hfclip.publishing.export import export as export_model  # noqa: PLC0415

    export_model(model, folder, layout, force=force, **options)
    for path in sorted(folder.iterdir()):
        click.echo(f"{path.stat().st_size:>15,}  {path}")


@click.command()
@click.argument("source", shell_complete=complete_models)
@click.argument("repository")
@click.option(
    "--base",
    shell_complete=complete_models,
    help="Model that SOURCE was fine-tuned from: a name, folder or repository.",
)
@part_options
@click.option(
    "--layout",
    type=click.Choice(["hfclip", "open_clip", "transformers"]),
    default="hfclip",
    show_default=True,
    help="Layout to send. hfclip loads all three.",
)
@click.option("--license", "license_name", help="The Hub's identifier: mit, apache-2.0, ...")
@click.option("--dataset", "datasets", multiple=True, help="Training dataset. Repeatable.")
@click.option(
    "--metrics",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='JSON file: {"accuracy": 0.9} with one --dataset, or {"dataset": {"accuracy": 0.9}}.',
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
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
@click.option(
    "--space",
    metavar="NAME",
    help="Publish a Space too: a page on the Hub to try the model. NAME is org/name, or a name in "
    "your own namespace.",
)
@space_options
@click.option("--dry-run", is_flag=True, help="Check everything, show the plan, send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def publish(
    source: str,
    repository: str,
    private: bool,
    create_pr: bool,
    dry_run: bool,
    as_json: bool,
    card: "CardRule | None",
    space: str | None,
    replace_space: bool,
    hfclip_from: str | None,
    **about: Any,
) -> None:
    """Publish a fine-tuned CLIP on the Hub.

    SOURCE is a weight file (with --base) or a folder; --subfolder and --variant choose among the
    files of a folder. REPOSITORY is org/name, or a name in your own
    namespace. Log in first with `hf auth login`, or set HF_TOKEN.

    The model is checked, sent in one commit, loaded back from the Hub and compared bit for bit. The
    README.md of a folder becomes the model card; --license, --base, --dataset and --metrics change
    its head.

    With --space, a Space is published after the model: an app.py that opens the page of `hfclip
    app` for this commit of the model, a requirements.txt with the versions of this machine, and a
    README.md. Files that a person wrote in the Space are never replaced unless --replace-space
    says so.

    With --json, standard output is one object whose "status" is "published", "nothing changed",
    "dry run" or "failed".

    \b
    Examples:
      hfclip publish last.pt me/my-clip --base ViT-B/16 --license mit --dry-run
      hfclip publish folder/ me/my-clip --layout transformers --metrics results.json
      hfclip publish folder/ me/my-clip --space me/my-demo
    """  # noqa: D301  # \b is click's mark for text that it does not wrap
    about["license"] = about.pop("license_name")
    about |= {"card": card or "refuse", "create_pr": create_pr}
    page = {"repo_id": space, "replace": replace_space, "hfclip_from": hfclip_from}
    if space is None and (replace_space or hfclip_from):
        raise click.UsageError("--replace-space and --hfclip-from need --space.")
    try:
        _publish(source, repository, private, dry_run, as_json, about, page)
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
    page: dict[str, Any],
) -> None:
    """Prints the plan, publishes, and prints the outcome."""
    from hfclip.publishing import finetune as publishing  # noqa: PLC0415
    from hfclip.publishing.space import find_space  # noqa: PLC0415

    sending: dict[str, Any] = {"private": private or None, "create_pr": options["create_pr"]}
    space = find_space(**page, **sending) if page["repo_id"] else None
    with publishing.prepared(source, repository, **options) as publication:
        outcome = publishing.dry_outcome(publication, space, private=private)
        if not as_json:
            print_facts(outcome.plan)
            if outcome.space:
                click.echo()
                print_space(outcome.space.plan)
        if not dry_run:
            outcome = publishing.send_all(publication, space, **sending)
    if as_json:
        click.echo(json.dumps(outcome.to_dict(), indent=2))
        return
    click.echo(SUMMARIES[outcome.status].format(outcome.url))
    if outcome.space and not dry_run:
        click.echo(SUMMARIES[outcome.space.status].format(outcome.space.url))
