"""The commands `hfclip models`, `download`, `verify` and `inspect`."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from hfclip.cli.completion import complete_models
from hfclip.cli.output import print_facts, table
from hfclip.cli.part_options import part_options
from hfclip.errors import HfclipError

if TYPE_CHECKING:
    from hfclip.hub.integrity import Digest
    from hfclip.sources.download import Download
    from hfclip.sources.verify import Verification

    Result = Download | Verification
    Outcomes = Iterable[tuple[str, Result | HfclipError]]

NAMESPACE_HELP = (
    "Hub account whose copies of the nine releases are used: with `me`, ViT-B/32 is me/ViT-B-32. "
    "By default HFCLIP_NAMESPACE, if set."
)
REVISION_HELP = (
    "Branch, tag or commit of a repository; by default the pinned commit of a release, else main."
)
# Columns that `models` prints only with --json.
_JSON_ONLY = ("repository", "revision", "namespace", "subfolder", "variant")


@click.command()
@click.option("--namespace", help=NAMESPACE_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def models(namespace: str | None, as_json: bool) -> None:
    """List the nine releases, the bundled model and other CLIP models in the cache.

    Makes no request. The cache is the cache of the Hugging Face Hub.

    \b
    States:
      verified    all files are cached, and unchanged since hfclip verified them
      cached      all files are cached; some were not verified, or have changed since
      partial     some files are cached; `hfclip download NAME` fetches the others
      not cached  no file is cached
      bundled     part of hfclip

    \b
    Examples:
      hfclip models
      hfclip models --namespace me
      hfclip models --json
    """  # noqa: D301  # \b is click's mark for text that it does not wrap
    from hfclip.sources.inspect import list_models  # noqa: PLC0415

    rows = [model.to_dict() for model in list_models(namespace=namespace)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(table([{k: v for k, v in row.items() if k not in _JSON_ONLY} for row in rows]))
    click.echo(_namespace_note(rows[0]), nl=False)


def _namespace_note(row: dict[str, Any]) -> str:
    """Returns a line that names the account of the releases; empty if they are the pinned ones."""
    account = row["repository"].partition("/")[0]
    sources = {
        None: "",
        "namespace": f"The nine releases are those of {account} (--namespace).\n",
        "HFCLIP_NAMESPACE": f"The nine releases are those of {account} (HFCLIP_NAMESPACE).\n",
    }
    return sources[row["namespace"]]


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_models)
@click.option("--revision", help=REVISION_HELP)
@click.option("--namespace", help=NAMESPACE_HELP)
@part_options
@click.option("--force", is_flag=True, help="Download cached files again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def download(names: tuple[str, ...], force: bool, as_json: bool, **options: Any) -> None:
    """Download models, so that they can be used without a network.

    NAME is a name that `hfclip models` lists, or a repository on the Hub such as org/name. If a
    download fails, the other names are still downloaded and the exit status is 1. --json prints an
    object with name, path, digest and error for each NAME.

    \b
    Examples:
      hfclip download ViT-B/32 RN50
      hfclip download laion/CLIP-ViT-B-32-laion2B-s34B-b79K
      hfclip download me/my-clip --revision v1 --json
      hfclip download me/my-clip --subfolder clip --variant fp16
    """  # noqa: D301  # \b is click's mark for text that it does not wrap
    from hfclip.sources.download import download as fetch  # noqa: PLC0415

    def run(name: str) -> "Download":
        return fetch(name, force_download=force, **options)

    _report(_attempts(names, run), _download_text, as_json=as_json)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_models)
@click.option("--all", "everything", is_flag=True, help="Verify all cached models.")
@click.option("--repair", is_flag=True, help="Download damaged files again.")
@click.option("--revision", help=REVISION_HELP)
@click.option("--namespace", help=NAMESPACE_HELP)
@part_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def verify(
    names: tuple[str, ...], everything: bool, repair: bool, as_json: bool, **options: Any
) -> None:
    """Check that cached models have the published hashes.

    Hashes all cached files of each model again; results of earlier checks are not used. Makes no
    request without --repair. NAME is a release, a repository such as org/name, "digits", or a file
    or folder with the published weights of one of the nine releases.

    --all verifies each CLIP model in the Hub's cache, at every cached commit that has its weights,
    and OpenAI's files in ~/.cache/clip. If nothing is cached, the exit status is 0.

    The exit status is 1 if a file is damaged, if a named model is not cached, or if no hash is
    published for it. After a failure the other models are still verified. --json prints an object
    with name, path, digest, files and error for each model.

    \b
    Examples:
      hfclip verify ViT-B/32
      hfclip verify me/my-clip --repair
      hfclip verify --all --json
    """  # noqa: D301  # \b is click's mark for text that it does not wrap
    from hfclip.sources import verify as verifying  # noqa: PLC0415

    if everything == bool(names):
        raise click.UsageError("Give either one or more names, or --all.")
    if everything and any(options.values()):
        given = " or ".join(f"--{name}" for name, value in options.items() if value)
        raise click.UsageError(f"--all cannot be combined with {given}.")

    def run(name: str) -> "Verification":
        return verifying.verify(name, repair=repair, **options)

    outcomes: Outcomes
    outcomes = verifying.verify_all(repair=repair) if everything else _attempts(names, run)
    _report(outcomes, _verification_text, as_json=as_json)


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.option("--revision", help=REVISION_HELP)
@click.option("--namespace", help=NAMESPACE_HELP)
@click.option(
    "--base",
    shell_complete=complete_models,
    help="Model that a weight file was fine-tuned from: a name, folder or repository.",
)
@part_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(model: str, as_json: bool, **options: Any) -> None:
    """Show the architecture, dtypes, hash and origin of a model.

    MODEL is a name that `hfclip models` lists, a repository on the Hub, a folder or a weight file.
    No code from the files is run. A model on the Hub is downloaded first if it is not cached.

    \b
    Examples:
      hfclip inspect digits
      hfclip inspect ViT-B-32.pt --json
      hfclip inspect ViT-B/32 --namespace me
      hfclip inspect me/my-clip --revision v1
    """  # noqa: D301  # \b is click's mark for text that it does not wrap
    from hfclip.sources import inspect as inspection  # noqa: PLC0415

    facts = inspection.inspect(model, **options).to_dict()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    print_facts(facts)


def _attempts(
    names: Iterable[str], run: Callable[[str], "Result"]
) -> "Iterator[tuple[str, Result | HfclipError]]":
    """Calls a function on each name and yields its result, or its error if it fails."""
    for name in names:
        try:
            yield name, run(name)
        except HfclipError as error:
            yield name, error


def _report(outcomes: "Outcomes", text: Callable[[Any], str], *, as_json: bool) -> None:
    """Prints each outcome when it is ready and the failed names at the end.

    Exits with status 1 if a name failed. Errors go to standard error, also with `as_json`.
    """
    rows, failed = [], []
    for name, outcome in outcomes:
        if isinstance(outcome, HfclipError):
            failed.append(name)
            click.echo(f"Error: {outcome}", err=True)
        elif not as_json:
            click.echo(text(outcome))
        rows.append(_json_row(name, outcome))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    if not rows:
        click.echo("No CLIP model is cached: there is nothing to verify.", err=as_json)
    if failed and len(rows) > 1:
        click.echo(f"{len(failed)} of {len(rows)} failed: {', '.join(failed)}", err=True)
    sys.exit(1 if failed else 0)


def _download_text(result: "Download") -> str:
    return f"{result.name}  {result.origin}\n  {result.path}"


def _verification_text(result: "Verification") -> str:
    kind, value = result.digest
    return "\n  ".join([f"{result.name}  {kind} {value}", *map(str, result.files)])


def _json_row(name: str, outcome: "Result | HfclipError") -> dict[str, Any]:
    if isinstance(outcome, HfclipError):
        return {"name": name, "path": None, "digest": None, "error": str(outcome)}
    row: dict[str, Any] = {
        "name": name,
        "path": str(outcome.path),
        "digest": _digest_text(outcome.digest),
        "error": None,
    }
    files = getattr(outcome, "files", None)
    if files is not None:
        row["files"] = {str(path): _digest_text(digest) for path, digest in files.items()}
    return row


def _digest_text(digest: "Digest | None") -> str | None:
    return digest and f"{digest.kind}:{digest.value}"
