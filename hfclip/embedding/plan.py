"""The plan of a collection: which inputs make which rows of which part. It says what is live.

The plan is one Parquet file with a row group for each part, so a million inputs are read part by
part. It is replaced as a whole. A row of a part that is not in the plan is dead.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfclip.data.parquet_files import open_parquet
from hfclip.embedding.items import Item, item_schema, items_of
from hfclip.embedding.parts import (
    HIDDEN,
    complete_parts,
    digest_path,
    part_name,
    part_path,
    write_synced,
)
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

_DIGEST, _NEXT = b"hfclip.plan", b"hfclip.next"


@dataclass(frozen=True)
class PlannedPart:
    """The live rows of a part.

    Attributes:
        number: The number of the part.
        name: Its name without an ending, such as "part-00003".
        rows: The indices of the rows in the part, ascending.
        items: The input of each of these rows.
    """

    number: int
    name: str
    rows: Sequence[int]
    items: Sequence[Item]


class Plan:
    """The plan on the disk. Its rows are read when they are asked for.

    Attributes:
        digest: A digest of all rows. Equal inputs in equal places have equal digests.
        sizes: The number of live rows of each part, by the number of the part, ascending.
        next_number: The number of the next new part. Numbers are never used twice.
    """

    def __init__(self, out: Path) -> None:
        """Reads what the plan holds, but no rows.

        Raises:
            DataError: pyarrow is missing, the folder has no plan, or the plan is damaged.
            OSError: The plan cannot be read.
        """
        self._out = out
        self._path = plan_path(out)
        try:
            with open_parquet(self._path, "embed") as file:
                facts = file.schema_arrow.metadata or {}
                self.digest = facts[_DIGEST].decode()
                self.next_number = int(facts[_NEXT])
                groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
                self.sizes: Mapping[int, int] = {
                    group.column(0).statistics.min: group.num_rows for group in groups
                }
        except FileNotFoundError as error:
            raise DataError(
                f"{out} has no plan ({HIDDEN}/{self._path.name}). Run `hfclip embed` first."
            ) from error
        except (KeyError, AttributeError, UnicodeDecodeError) as error:
            raise DataError(f"{self._path} is damaged or is no plan ({error}).") from error
        self._groups = {number: place for place, number in enumerate(self.sizes)}

    @property
    def count(self) -> int:
        """The number of inputs."""
        return sum(self.sizes.values())

    @property
    def part_numbers(self) -> tuple[int, ...]:
        """The numbers of the parts, ascending."""
        return tuple(self.sizes)

    @property
    def pending(self) -> tuple[int, ...]:
        """The numbers of the parts that have no file yet, ascending."""
        complete = set(complete_parts(self._out))
        return tuple(number for number in self.sizes if number not in complete)

    def parts(self) -> Iterator[PlannedPart]:
        """Yields the parts in order. One part is in memory at a time.

        Raises:
            DataError: The plan has been replaced since this object was made, or is damaged.
        """
        for number, table in self.tables():
            yield _planned(number, table)

    def part(self, number: int) -> PlannedPart:
        """Returns a part.

        Raises:
            DataError: The plan has no such part, has been replaced, or is damaged.
        """
        if number not in self._groups:
            raise DataError(f"The plan of {self._out} has no {part_name(number)}.")
        with self._opened() as file:
            return _planned(number, self._read(file, number, None))

    def tables(self, columns: Sequence[str] | None = None) -> "Iterator[tuple[int, pyarrow.Table]]":
        """Yields the number and the columns of each part, for readers that need no items.

        Args:
            columns: The names of the columns. None reads all.

        Raises:
            DataError: The plan has been replaced since this object was made, or is damaged.
        """
        with self._opened() as file:
            for number in self._groups:
                yield number, self._read(file, number, columns)

    @contextmanager
    def _opened(self) -> "Iterator[pyarrow.parquet.ParquetFile]":
        with open_parquet(self._path, "embed") as file:
            if (file.schema_arrow.metadata or {}).get(_DIGEST) != self.digest.encode():
                raise DataError(f"The plan of {self._out} has changed meanwhile. Open it again.")
            yield file

    def _read(
        self, file: "pyarrow.parquet.ParquetFile", number: int, columns: Sequence[str] | None
    ) -> "pyarrow.Table":
        try:
            return file.read_row_group(self._groups[number], columns=columns, use_threads=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path} is damaged ({error}).") from error


def _planned(number: int, table: "pyarrow.Table") -> PlannedPart:
    rows = table.column("row").to_pylist()
    return PlannedPart(number, part_name(number), rows, items_of(table))


def plan_path(out: Path) -> Path:
    """Returns the path of the plan."""
    return out / HIDDEN / "plan.parquet"


def find_plan(out: Path) -> Plan | None:
    """Returns the plan of a folder, or None if it has none.

    Raises:
        DataError: The folder has parts but no plan, or the plan is damaged.
    """
    if plan_path(out).exists():
        return Plan(out)
    if complete_parts(out):
        raise DataError(
            f"{out} has parts but no plan. The hidden folder {HIDDEN} was probably not copied: "
            "copy it too, or name another folder."
        )
    return None


def write_plan(
    out: Path, parts: "Iterable[tuple[int, pyarrow.Table]]", digest: str, next_number: int
) -> Plan:
    """Replaces the plan.

    Args:
        out: The folder of the collection.
        parts: For each part, ascending, its number and the columns of its rows: `row` and those of
            the items, sorted by `row`.
        digest: The digest of the plan.
        next_number: The number of the next new part.

    Raises:
        OSError: The plan cannot be written.
    """
    import pyarrow  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    fields = [pyarrow.field("part", pyarrow.int32()), pyarrow.field("row", pyarrow.int32())]
    facts = {_DIGEST: digest, _NEXT: str(next_number)}
    schema = pyarrow.schema([*fields, *item_schema()], metadata=facts)

    def write(path: Path) -> None:
        with parquet.ParquetWriter(
            path,
            schema,
            compression="zstd",
            use_dictionary=["ref", "column", "field"],
            write_statistics=["part"],
        ) as writer:
            for number, table in parts:
                part = pyarrow.array([number] * table.num_rows, pyarrow.int32())
                whole = table.add_column(0, fields[0], part).select(schema.names).cast(schema)
                writer.write_table(whole, row_group_size=max(1, table.num_rows))

    write_synced(plan_path(out), write)
    return Plan(out)


def remove_unplanned(out: Path, plan: Plan) -> None:
    """Removes the parts that are not in the plan, with their digests.

    They are parts without a live row, and parts of a `compact` that was killed. Call it only while
    nobody else writes to the collection.
    """
    for number in complete_parts(out):
        if number not in plan.sizes:
            part_path(out, number).unlink(missing_ok=True)
    for path in digest_path(out, 0).parent.glob("part-*.sha256"):
        digits = path.stem.removeprefix("part-")
        if digits.isdecimal() and int(digits) not in plan.sizes:
            path.unlink(missing_ok=True)
