"""`hfclip models`, `download`, `verify` and `inspect`: what models are and where they lie."""

import json

import click

from hfclip.cli.output import print_facts, table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def models(as_json: bool) -> None:
    """List the models that have a name."""
    from hfclip.inspection import list_models  # noqa: PLC0415

    rows = list_models()
    click.echo(json.dumps(rows, indent=2) if as_json else table(rows))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--revision", help="A branch, tag or commit, in place of the pinned one.")
@click.option("--namespace", help="Whose copies of the nine releases to fetch.")
@click.option("--force", is_flag=True, help="Fetch again what is cached.")
def download(
    names: tuple[str, ...], revision: str | None, namespace: str | None, force: bool
) -> None:
    """Fetch models ahead, for use without a network.

    NAME is one of `hfclip models`, or a repository on the Hub such as org/name.

    \b
    Examples:
      hfclip download ViT-B/32 RN50
      hfclip download laion/CLIP-ViT-B-32-laion2B-s34B-b79K
    """  # noqa: D301  # \b is click's own mark
    from hfclip.hub import Access  # noqa: PLC0415
    from hfclip.sources import find  # noqa: PLC0415

    for name in names:
        access = Access(force_download=force)
        source = find(name, access, revision=revision, namespace=namespace)
        click.echo(f"{name}  {source.origin}\n  {source.weights}")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--repair", is_flag=True, help="Fetch anew what is damaged.")
@click.option("--namespace", help="Whose copies of the nine releases are meant.")
def verify(names: tuple[str, ...], repair: bool, namespace: str | None) -> None:
    """Hash cached models again, whatever is remembered of them.

    Without --repair no request is made. The exit status is 1 where a file is damaged or not cached.

    \b
    Examples:
      hfclip verify ViT-B/32
      hfclip verify me/my-clip --repair
    """  # noqa: D301  # \b is click's own mark
    from hfclip.inspection import verify as verify_model  # noqa: PLC0415

    for name in names:
        path, digest = verify_model(name, repair=repair, namespace=namespace)
        click.echo(f"{name}  {digest.kind} {digest.value}\n  {path}")


@click.command()
@click.argument("model")
@click.option(
    "--base", help="What a weight file was fine-tuned from: a name, folder or repository."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(model: str, base: str | None, as_json: bool) -> None:
    """Show what a model is: its numbers, dtypes, hash and origin.

    MODEL is a name, a folder or a weight file; no part of it is run.

    \b
    Examples:
      hfclip inspect digits
      hfclip inspect ViT-B-32.pt --json
    """  # noqa: D301  # \b is click's own mark
    from hfclip import inspection  # noqa: PLC0415

    facts = inspection.inspect(model, base=base)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    print_facts(facts)
