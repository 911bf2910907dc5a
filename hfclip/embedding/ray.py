"""Encodes the parts of a plan with Ray, on this machine or on a cluster.

Each part of the plan is one call of an actor. Ray starts the workers, places them on nodes with
room, and replaces those that end; `scheduling` decides which worker gets which part. Ray Data's
operators are not used, because the items are known beforehand, and because readers and actors of
Ray Data wait for each other for ever on few cores (github.com/ray-project/ray/issues/44687). With
one call for each part nothing else needs a core, and a part that is late can be given to a second
worker.
"""

import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from hfclip.embedding.cluster import share_of
from hfclip.embedding.events import Event, Finished, GivenUp, Resting, Retried, Stopped, Tick
from hfclip.embedding.manifest import Manifest
from hfclip.embedding.nodes import Task, sample_of, versions
from hfclip.embedding.part_files import part_name
from hfclip.embedding.plan import Plan
from hfclip.embedding.ray_crew import RayCrew
from hfclip.embedding.ray_session import Session, first_line
from hfclip.embedding.scheduling import run_parts
from hfclip.embedding.stores import Store
from hfclip.embedding.work import Encoded
from hfclip.errors import EngineError
from hfclip.interruption import stop_request

# Seconds after which a run without a worker says what it waits for, and how often it does.
_QUIET, _REPEATED = 10.0, 15.0
# Seconds after which a run says that nothing was completed.
_SLOW = 600.0
# Seconds that a run waits for other workers after all that have begun refused.
_REFUSED = 10.0
# Parts or nodes that an error names.
_NAMED = 3
_ENDS = "Ends the workers. Parts in work are dropped."
_KEPT = "Complete parts are kept. The same command continues."


def encode_on_ray(
    session: Session,
    manifest: Manifest,
    plan: Plan,
    numbers: Sequence[int],
    store: Store,
    *,
    progress: bool = False,
) -> Encoded:
    """Encodes and writes parts with the workers of a cluster.

    Args:
        session: The connection.
        manifest: The manifest of the run. Each worker must have the same model and options.
        plan: The plan of the collection.
        numbers: The numbers of the parts.
        store: The place of the collection. All nodes must see it.
        progress: Whether to show a bar, if standard error is a terminal.

    Raises:
        EngineError: No worker came within the patience of the settings, all nodes refused, the
            cluster is gone, or parts were given up. Complete parts stay.
        KeyboardInterrupt: Ctrl-C was pressed, or the process was asked to end.
    """
    ray = session.started()
    share = share_of(session.cluster, session.nodes(), gpu=session.uses_gpu, parts=len(numbers))
    if session.is_own and not share.room:
        raise EngineError(
            f"A worker needs {share.need}; this machine has {session.size()}. Choose fewer."
        )
    task = Task(
        store,
        session.worker_options(manifest, share.cpus),
        manifest,
        plan.digest,
        versions(),
        sample_of(plan, numbers[0]),
        share.cpus,
    )
    sizes = {number: plan.sizes[number] for number in numbers}
    unit = "text" if manifest.kind == "texts" else "image"
    with ExitStack() as stack:
        stop = stack.enter_context(stop_request(message=_ENDS))
        bar = stack.enter_context(
            tqdm(total=sum(sizes.values()), unit=unit, disable=None if progress else True)
        )
        crew = RayCrew(ray, task, share, session.check_alive)
        stack.callback(crew.close)
        run = _Run(session, crew, bar, stop, sizes, progress)
        try:
            return run.encode()
        except ray.exceptions.RayError as error:
            raise EngineError(f"Ray has failed ({first_line(error)}). {_KEPT}") from error


@dataclass
class _Run:
    """Follows the events of a run: the bar, the lines for the person, and the end."""

    session: Session
    crew: RayCrew
    bar: "tqdm[Any]"
    stop: threading.Event
    sizes: Mapping[int, int]
    progress: bool
    inputs: int = 0
    errors: int = 0
    given_up: list[GivenUp] = field(default_factory=list)
    joined: float | None = None
    refusals: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._seen = self._said = self._completed = time.monotonic()
        self._refused: float | None = None

    def encode(self) -> Encoded:
        """Runs until all parts are complete."""
        share = self.crew.share
        if share.room < share.workers:
            self._say(
                f"There is room for {share.room} of {share.workers} workers, which need "
                f"{share.need} each. The others start when there is more."
            )
        for event in run_parts(self.sizes, self.crew):
            self._follow(event)
            if self.stop.is_set():
                raise KeyboardInterrupt
        if self.given_up:
            raise EngineError(self._given_up())
        began = self.joined or time.monotonic()
        return Encoded(self.inputs, time.monotonic() - began)

    def _follow(self, event: Event) -> None:
        if isinstance(event, Finished):
            self._completed = time.monotonic()
            # There is no result if an earlier attempt wrote the part and its worker then died.
            self.inputs += self.sizes[event.part]
            if event.result is not None:
                self.errors += event.result.errors
        elif isinstance(event, Retried):
            self._say(
                f"{part_name(event.part)} is tried again, because attempt {event.attempt} on "
                f"{self.crew.host(event.worker)} failed: {event.reason}."
            )
        elif isinstance(event, GivenUp):
            self.given_up.append(event)
            self._say(f"{part_name(event.part)} is given up: {event.reason}.")
        elif isinstance(event, Resting):
            name = self.crew.host(event.name)
            self._say(f"{name} rests for {event.seconds:,.0f} s after several failures.")
        elif isinstance(event, Stopped):
            raise EngineError(f"The run stops: {event.reason}. {self._given_up()}")
        elif isinstance(event, Tick):
            self._tick(event, time.monotonic())

    def _tick(self, tick: Tick, now: float) -> None:
        for host, reason in self.crew.refusals.items():
            if (host, reason) not in self.refusals:
                self.refusals.add((host, reason))
                self._say(f"{host} does not work: {reason}.")
        if tick.workers:
            self._seen = now
            self.joined = self.joined or now
        else:
            self._check_missing(now)
        parts = self.crew.progress.values()
        self.bar.set_postfix(
            errors=self.errors + sum(errors for _, errors in parts),
            workers=tick.workers,
            refresh=False,
        )
        self.bar.update(self.inputs + sum(inputs for inputs, _ in parts) - self.bar.n)
        if tick.busy and now - max(self._completed, self._said) > _SLOW:
            self._said = now
            self._say(f"No part was completed in {now - self._completed:,.0f} s.")

    def _check_missing(self, now: float) -> None:
        """Says what a run without a worker waits for, and ends it after its patience.

        Raises:
            EngineError: All workers refused, or none came in time.
        """
        waited = now - self._seen
        if self.crew.refused:
            self._refused = self._refused or now
            if self.crew.refused == self.crew.share.workers or now - self._refused > _REFUSED:
                raise EngineError(f"No node can work: {self._reasons()}. {_KEPT}")
        if waited >= self.session.cluster.patience:
            raise EngineError(
                f"No worker has come in {waited:,.0f} s. The run waits for {self._missing()}. "
                f"{_KEPT}"
            )
        if waited >= _QUIET and now - self._said >= _REPEATED:
            self._said = now
            self._say(f"Waits for {self._missing()}.")

    def _missing(self) -> str:
        """Returns what a run without a worker waits for, in words."""
        if self.crew.loading:
            return f"{self.crew.loading} workers that load the model"
        need = self.crew.share.need
        return f"{need} for a worker, or for its process to start ({self.session.free()})"

    def _reasons(self) -> str:
        found = [f"{host}: {reason}" for host, reason in self.crew.refusals.items()]
        return "; ".join(found[:_NAMED])

    def _given_up(self) -> str:
        """Names the parts that were given up, with their reasons."""
        named = [f"{part_name(event.part)} ({event.reason})" for event in self.given_up[:_NAMED]]
        if len(self.given_up) > _NAMED:
            named.append(f"{len(self.given_up) - _NAMED:,} more")
        if not named:
            return _KEPT
        return f"{len(self.given_up):,} parts were given up: {', '.join(named)}. {_KEPT}"

    def _say(self, line: str) -> None:
        if self.progress:
            self.bar.write(line, file=sys.stderr)
        else:
            warnings.warn(line, stacklevel=2)
