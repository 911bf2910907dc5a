"""The command `hfclip app`."""

import click

from hfclip.cli.completion import complete_models
from hfclip.cli.output import echo
from hfclip.cli.part_options import part_options


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
@click.option("--namespace", help="The account whose copies of the nine releases are used.")
@click.option(
    "--base",
    shell_complete=complete_models,
    help="The model that a weight file was fine-tuned from.",
)
@part_options
@click.option("--device", help="cpu, cuda, cuda:1, ... Default: the GPU if there is one.")
def app(
    model: str | None,
    embeddings: str | None,
    host: str,
    port: int | None,
    queue: int,
    device: str | None,
    **places: str | None,
) -> None:
    """Open a page in the browser that tries a model.

    MODEL is a name, folder, file or repository. The page classifies pictures, compares them with
    captions, and shows the facts of the model. With --embeddings it also searches a collection of
    pictures, with the model that made it; MODEL can then be left out.

    The page answers to this machine only, unless --host says otherwise. It makes no request to
    another host. It serves no files but the pictures of the collection. Ctrl-C ends it.

    \b
    Examples:
      hfclip app digits
      hfclip app ViT-B/16 --port 8080
      hfclip app --embeddings photos-embedded
      hfclip app me/my-clip --host 0.0.0.0
    """  # noqa: D301  # \b is click's syntax
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
