"""The options of `hfclip embed` that choose where parts are encoded."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from hfclip.embedding.cluster import Cluster

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="ray encodes parts in several processes, on this machine or on a Ray cluster.",
    ),
    click.option(
        "--address",
        help="Ray cluster, such as 10.0.0.1:6379; auto for the one on this machine; local to start "
        "Ray for this run.  [default: auto if a cluster runs, else local]",
    ),
    click.option(
        "--cpus-per-worker",
        type=click.IntRange(min=1),
        help="Cores of each process of Ray.  [default: an equal part; without --workers 4]",
    ),
    click.option(
        "--gpus-per-worker",
        type=click.FloatRange(min=0),
        help="GPUs of each process of Ray, also 0.5.  [default: 1 if the cluster has GPUs]",
    ),
    click.option(
        "--patience",
        type=click.FloatRange(min=0),
        default=600.0,
        show_default=True,
        metavar="SECONDS",
        help="How long --engine ray waits while the cluster has no room for any process.",
    ),
)
# The options that only Ray knows, by their parameters.
_ONLY_RAY = ("address", "cpus_per_worker", "gpus_per_worker")


def engine_options(command: _Function) -> _Function:
    """Adds the options of the engine to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def cluster_of(options: dict[str, Any]) -> "Cluster | None":
    """Removes the options of the engine, and returns the settings of Ray, or None.

    With Ray, `workers` is the number of its processes, and each of them decodes with its cores.

    Raises:
        UsageError: An option of Ray is given for another engine.
    """
    engine, patience = options.pop("engine"), options.pop("patience")
    given = {name: options.pop(name) for name in _ONLY_RAY}
    if engine == "ray":
        from hfclip.embedding.cluster import Cluster  # noqa: PLC0415

        return Cluster(workers=options.pop("workers"), patience=patience, **given)
    for name, value in given.items():
        if value is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --engine ray.")
    return None
