"""Opens a collection for writing: checks its manifest, and locks it.

Two locks are used. `planning` is exclusive and short: it is held while inputs are compared with the
plan and while the plan is written. `writing` is held while parts are written: exclusive, or shared
by the shares of `--part-of`. The plan changes only while nobody else writes parts. A folder on this
machine has locks of the system, a remote one has files, see `hfclip.embedding.claims`.
"""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from hfclip.embedding.claims import Claim
from hfclip.embedding.locks import Lock
from hfclip.embedding.manifest import NAME, Manifest, find_manifest, write_manifest
from hfclip.embedding.part_files import named_parts, remove_leftovers
from hfclip.embedding.stores import HIDDEN, AnyStore, Store, open_store
from hfclip.errors import DataError

# How long a process waits for another one that plans, in seconds.
PATIENCE = 60.0
# How long a share waits. The others plan before it, one after the other: 9 s each for a million
# inputs.
SHARED_PATIENCE = 3_600.0


@dataclass
class Opened:
    """A collection that this process writes.

    Attributes:
        out: The place of the collection.
        manifest: The manifest of this run.
        shared: Whether other processes may write parts at the same time.
        drop: Whether sources that are no longer named, or most inputs, may disappear.
        planning_lock: The lock of those who plan.
        writing_lock: The lock of those who write parts.
    """

    out: Store
    manifest: Manifest
    shared: bool
    drop: bool
    planning_lock: Lock | Claim
    writing_lock: Lock | Claim

    @contextmanager
    def planning(self) -> Iterator[Manifest | None]:
        """Holds the lock for planning, and yields the manifest on the disk, or None.

        Raises:
            DataError: Other processes plan for longer than a minute, or than an hour if they share
                the work, or the manifest on the disk does not fit this run.
        """
        if not self._may_plan():
            raise DataError(
                f"Another run plans in {self.out}: {self.planning_lock.holder()}. Wait until it "
                f"encodes, or name another folder.{self.planning_lock.advice()}"
            )
        try:
            yield self._checked()
        finally:
            self.planning_lock.release()

    def _may_plan(self) -> bool:
        """Takes the lock for planning, and returns whether that succeeded in time."""
        lock = self.planning_lock
        if lock.take(patience=PATIENCE):
            return True
        if not self.shared:
            return False
        warnings.warn(f"Waits until another run has planned: {lock.holder()}.", stacklevel=4)
        return lock.take(patience=SHARED_PATIENCE)

    def hold(self, *, changes_plan: bool) -> None:
        """Takes the lock for writing. Call it only while planning.

        Raises:
            DataError: Another process writes parts, and this run cannot write beside it.
        """
        self.planning_lock.check()
        if self.writing_lock.take(shared=self.shared and not changes_plan):
            if not self.shared or changes_plan:
                remove_leftovers(self.out)
            return
        reason = (
            "The inputs have changed, and the plan cannot change while others write. "
            if self.shared and changes_plan
            else ""
        )
        raise DataError(
            f"Another run writes to {self.out}: {self.writing_lock.holder()}. {reason}Wait until "
            f"it ends, or name another folder.{self.writing_lock.advice()}"
        )

    def record(self, digest: str, inputs: int) -> None:
        """Writes the manifest with the digest and the size of the plan, if it changes."""
        before = find_manifest(self.out)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.manifest = replace(
            self.manifest,
            plan_digest=digest,
            inputs=inputs,
            created=before.created if before else created,
        )
        if self.manifest != before:
            write_manifest(self.out, self.manifest)

    def _checked(self) -> Manifest | None:
        """Returns the manifest on the disk if this run may continue its collection."""
        before = find_manifest(self.out)
        if before is None:
            _check_new(self.out)
            return None
        before.check_same(self.manifest)
        gone = [source for source in before.sources if source not in self.manifest.sources]
        if gone and not self.drop:
            raise DataError(
                f"{self.out} also holds embeddings of {', '.join(gone)}, which this run does not "
                "name, so its inputs would disappear from the results. Name all sources, or "
                "remove these inputs with --drop (drop=True in Python)."
            )
        return before


@contextmanager
def opened(
    out: AnyStore, manifest: Manifest, *, shared: bool = False, drop: bool = False
) -> Iterator[Opened]:
    """Opens a collection for writing.

    A collection that is not shared is locked at once. Shares lock it in `update_plan`.

    Args:
        out: The place of the collection. A folder is made if it does not exist.
        manifest: The manifest of this run; `plan_digest`, `inputs` and `created` are filled later.
        shared: Whether other processes may write parts at the same time.
        drop: Whether sources that are no longer named, or most inputs, may disappear.

    Raises:
        DataError: Another process writes to the folder, another model or other options made its
            embeddings, it has a source that is not named now, or it holds other files.
    """
    store = open_store(out)
    store.prepare()
    if not store.exists(NAME):
        _check_new(store)
    with store.lock("planning") as planning, store.lock("writing") as writing:
        found = Opened(store, manifest, shared, drop, planning, writing)
        with found.planning():
            if not shared:
                found.hold(changes_plan=True)
        yield found


def _check_new(store: Store) -> None:
    if named_parts(store):
        raise DataError(
            f"{store} holds parts but no {NAME}, so their model is unknown. Restore the file, or "
            "name another folder."
        )
    others = [
        name for name in sorted(store.names()) if name != HIDDEN and not name.endswith(".part")
    ]
    if others:
        raise DataError(
            f"{store} holds other files ({others[0]}). Name a folder that is new or empty."
        )
