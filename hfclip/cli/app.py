"""The command `hfclip app`."""

from typing import Any

import click

from hfclip.cli import collections
from hfclip.cli.completion import complete_models
from hfclip.cli.output import echo
from hfclip.cli.part_options import source_options
from hfclip.cli.space_options import SUMMARIES, print_space, space_options

# The options of a page on this machine, and those of a Space.
_HERE = ("embeddings", "host", "port", "base", "device")
_THERE = ("replace_space", "hfclip_from", "private", "create_pr", "dry_run")


@click.command()
@click.argument("model", required=False, shell_complete=complete_models)
@click.option(
    "--embeddings",
    type=click.Path(),
    metavar="OUT",
    help="A collection to search: a folder that `hfclip embed` has written.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at. 0.0.0.0 opens the page to other machines.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help="Port to listen at.  [default: the first free one from 7860]",
)
@click.option(
    "--queue",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Requests that may wait for the model. Later ones are refused.",
)
@source_options
@click.option("--device", help="cpu, cuda, cuda:1, ... Default: the GPU if there is one.")
@click.option(
    "--push",
    "space",
    metavar="NAME",
    help="Publish a Space with the page of MODEL instead of opening it here. NAME is org/name, or "
    "a name in your own namespace.",
)
@space_options
@click.option("--private", is_flag=True, help="Make a new Space private.")
@click.option("--create-pr", is_flag=True, help="Open a pull request in the Space.")
@click.option("--dry-run", is_flag=True, help="Check everything, show the plan, send nothing.")
def app(
    model: str | None,
    embeddings: str | None,
    host: str,
    port: int | None,
    queue: int,
    device: str | None,
    space: str | None,
    **options: Any,
) -> None:
    """Open a page in the browser that tries a model.

    MODEL is a name, folder, file or repository. The page classifies pictures, compares them with
    captions, and shows the facts of the model. With --embeddings it also searches a collection of
    pictures, with the model that made it; MODEL can then be left out.

    The page answers to this machine only, unless --host says otherwise. It makes no request to
    another host. It serves no files but the pictures of the collection. Ctrl-C ends it.

    With --push, no page is opened. hfclip publishes a Space instead: an app.py that opens the page
    of MODEL at its present commit, a requirements.txt with the versions of this machine, and a
    README.md. MODEL is on the Hub, or bundled. Files that a person wrote in the Space are never
    replaced unless --replace-space says so.

    \b
    Examples:
      hfclip app digits
      hfclip app ViT-B/16 --port 8080
      hfclip app --embeddings photos-embedded
      hfclip app me/my-clip --host 0.0.0.0
      hfclip app me/my-clip --push me/my-demo --dry-run
    """  # noqa: D301  # \b is click's syntax
    there = {name: options.pop(name) for name in _THERE}
    if space is not None:
        _push(model, space, {**options, **there})
        return
    collections.refuse(_THERE, "it is for a Space: give --push.")
    places: dict[str, str | None] = options
    if embeddings is not None and any(places.values()):
        given = next(name for name, value in places.items() if value)
        raise click.UsageError(f"Leave out --{given}: the collection names its model.")
    from hfclip.app.serve import check_gradio, serve  # noqa: PLC0415

    check_gradio()
    from hfclip.app.demo import open_demo  # noqa: PLC0415
    from hfclip.app.limits import Limits  # noqa: PLC0415

    limits = Limits(waiting=queue)
    demo = open_demo(model, embeddings, device=device, limits=limits, **places)
    served = serve(demo, host, port)
    echo(f"The page of {served.name} is at {served.address} (Ctrl-C ends it)")
    try:
        served.wait()
    finally:
        served.close()


def _push(model: str | None, space: str, options: dict[str, Any]) -> None:
    """Publishes a Space, and prints its plan and the outcome."""
    collections.refuse(_HERE, "a Space shows a model of the Hub.")
    from hfclip.publishing import space as publishing  # noqa: PLC0415

    model = model or "ViT-B/32"
    sending = {"private": options["private"] or None, "create_pr": options["create_pr"]}
    target = publishing.find_space(
        space, hfclip_from=options["hfclip_from"], replace=options["replace_space"], **sending
    )
    shown = publishing.resolve_model(
        model, options["namespace"], options["subfolder"], options["variant"]
    )
    plan = target.describe(publishing.described(shown), publishing.needs_token(shown))
    print_space(plan)
    if options["dry_run"]:
        echo(SUMMARIES["dry run"])
        return
    outcome = publishing.send_space(target, shown, plan, **sending)
    echo(SUMMARIES[outcome.status].format(outcome.url))
