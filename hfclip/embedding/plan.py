"""The plan of a collection: which inputs make which rows of which part. It says what is live.

The plan is one Parquet file with a row group for each part, so a million inputs are read part by
part. It is replaced as a whole. A row of a part that is not in the plan is dead. The plan of a
remote collection is read from a copy on this machine.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfclip.data.parquet_files import open_parquet
from hfclip.embedding.items import Item, item_schema, items_of
from hfclip.embedding.part_files import complete_parts, named_parts, part_name
from hfclip.embedding.stores import HIDDEN, AnyStore, open_store
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

PLAN = f"{HIDDEN}/plan.parquet"
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
    """The plan of a collection. Its rows are read when they are asked for.

    Attributes:
        digest: A digest of all rows. Equal inputs in equal places have equal digests.
        sizes: The number of live rows of each part, by the number of the part, ascending.
        next_number: The number of the next new part. Numbers are never used twice.
    """

    def __init__(self, out: AnyStore) -> None:
        """Reads what the plan holds, but no rows.

        Args:
            out: The place of the collection.

        Raises:
            DataError: pyarrow is missing, there is no plan, it is damaged, or a request fails.
            OSError: The plan cannot be read.
        """
        self._store = open_store(out)
        self._name = self._store.path(PLAN)
        try:
            self._copy = self._store.copy(PLAN)
            with open_parquet(self._name, "embed", self._copy) as file:
                facts = file.schema_arrow.metadata or {}
                self.digest = facts[_DIGEST].decode()
                self.next_number = int(facts[_NEXT])
                groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
                self.sizes: Mapping[int, int] = {
                    group.column(0).statistics.min: group.num_rows for group in groups
                }
        except FileNotFoundError as error:
            raise DataError(
                f"{self._store} has no plan ({PLAN}). Run `hfclip embed` first."
            ) from error
        except (KeyError, AttributeError, UnicodeDecodeError) as error:
            raise DataError(f"{self._name} is damaged or is no plan ({error}).") from error
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
        """The numbers of the parts that are not complete yet, ascending."""
        complete = set(complete_parts(self._store))
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
            raise DataError(f"The plan of {self._store} has no {part_name(number)}.")
        with self._opened() as file:
            return _planned(number, self._read(file, number, None))

    def tables(
        self, columns: Sequence[str] | None = None, numbers: Iterable[int] | None = None
    ) -> "Iterator[tuple[int, pyarrow.Table]]":
        """Yields the number and the columns of each part, for readers that need no items.

        Args:
            columns: The names of the columns. None reads all.
            numbers: The numbers of the parts. None reads all, in order.

        Raises:
            DataError: The plan has been replaced since this object was made, or is damaged.
        """
        with self._opened() as file:
            for number in self._groups if numbers is None else numbers:
                yield number, self._read(file, number, columns)

    @contextmanager
    def _opened(self) -> "Iterator[pyarrow.parquet.ParquetFile]":
        try:
            file = open_parquet(self._name, "embed", self._copy)
        except FileNotFoundError as error:  # a copy of another version has replaced this one
            raise self._changed() from error
        with file:
            if (file.schema_arrow.metadata or {}).get(_DIGEST) != self.digest.encode():
                raise self._changed()
            yield file

    def _changed(self) -> DataError:
        return DataError(f"The plan of {self._store} has changed meanwhile. Open it again.")

    def _read(
        self, file: "pyarrow.parquet.ParquetFile", number: int, columns: Sequence[str] | None
    ) -> "pyarrow.Table":
        try:
            return file.read_row_group(self._groups[number], columns=columns, use_threads=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{self._name} is damaged ({error}).") from error


def _planned(number: int, table: "pyarrow.Table") -> PlannedPart:
    rows = table.column("row").to_pylist()
    return PlannedPart(number, part_name(number), rows, items_of(table))


def find_plan(out: AnyStore) -> Plan | None:
    """Returns the plan of a collection, or None if there is none.

    Raises:
        DataError: There are parts but no plan, the plan is damaged, or a request fails.
    """
    store = open_store(out)
    if store.exists(PLAN):
        return Plan(store)
    if named_parts(store):
        raise DataError(
            f"{store} has parts but no plan. The hidden folder {HIDDEN} was probably not copied: "
            "copy it too, or name another folder."
        )
    return None


def write_plan(
    out: AnyStore, parts: "Iterable[tuple[int, pyarrow.Table]]", digest: str, next_number: int
) -> Plan:
    """Replaces the plan.

    Args:
        out: The place of the collection.
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

    store = open_store(out)
    store.write(PLAN, write)
    return Plan(store)
