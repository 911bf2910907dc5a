"""`hfclip env`: the environment, for a bug report."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from hfclip.cli.output import echo

if TYPE_CHECKING:
    from hfclip.environment import Environment, TorchFacts


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def env(as_json: bool) -> None:
    """Show versions, machine, cache and settings, for a bug report.

    No request is made. Tokens and passwords are not shown, and your home folder is written as ~.

    \b
    Examples:
      hfclip env
      hfclip env --json
    """  # noqa: D301  # \b is click's own mark
    from hfclip.environment import describe  # noqa: PLC0415

    found = describe()
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
        return
    lines = dict(_lines(found))
    width = max(map(len, lines))
    for name, value in lines.items():
        echo(f"{name:<{width}}  {value}")


def _lines(found: "Environment") -> Iterator[tuple[str, str]]:
    """Yields the name and the text of each line."""
    for name, version in found.versions.items():
        yield name, version or "not installed"
    yield "platform", found.platform
    yield "processor", found.processor
    if found.torch is None:
        yield "torch error", str(found.torch_error)
    else:
        yield from _torch_lines(found.torch)
    cache, settings = found.cache, found.settings
    yield "cache", cache.folder
    yield "cache size", _gigabytes(cache.size)
    yield "free space", "unknown" if cache.free is None else _gigabytes(cache.free)
    yield "HF_HOME", settings.hf_home
    yield "HF_ENDPOINT", settings.hf_endpoint or "not an address (not shown)"
    yield "HF_HUB_OFFLINE", _yes_or_no(settings.hf_hub_offline)
    yield "HFCLIP_NAMESPACE", settings.hfclip_namespace or "not set"
    yield "proxies set", _yes_or_no(settings.proxies)
    yield "token", f"found in {settings.token}" if settings.token else "not found"


def _torch_lines(torch: "TorchFacts") -> Iterator[tuple[str, str]]:
    build = f"built for CUDA {torch.cuda_build}" if torch.cuda_build else "built without CUDA"
    cuda = ", ".join(torch.cuda_devices) if torch.cuda_available else "not available"
    yield "CUDA", f"{cuda} (torch {torch.version}, {build})"
    yield "torch threads", str(torch.threads)
    yield "CPU instructions", ", ".join([torch.cpu_capability, *torch.instructions])
    yield "optimize", ", ".join(f"{name} in {used}" for name, used in torch.optimize.items())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
