"""The plan on the disk: read part by part, replaced as a whole."""

import shutil
from pathlib import Path

import pyarrow
import pytest
from embedded import encode, listed, run, write
from pyarrow import parquet

from hfclip.data.references import FileImage, TarImage
from hfclip.embedding.changes import update_plan
from hfclip.embedding.items import Item
from hfclip.embedding.plan import PLAN, Plan, PlannedPart, find_plan
from hfclip.errors import DataError

ITEMS = [
    Item("a.jpg", FileImage("/x/a.jpg"), "red", 3, 1),
    Item("t/b", TarImage("/x/t.tar", 512, 7), None, 7, None),
    Item("c", None, "words", None, None),
    Item("d", None, None, error="cannot be read"),
    Item("é\n", FileImage("/x/é"), None, 2**40, 2**62),
]


def test_parts_are_read_as_they_were_planned(tmp_path: Path) -> None:
    update_plan(tmp_path, iter(ITEMS), part_size=2)
    plan = Plan(tmp_path)
    parts = [
        PlannedPart(0, "part-00000", [0, 1], ITEMS[:2]),
        PlannedPart(1, "part-00001", [0, 1], ITEMS[2:4]),
        PlannedPart(2, "part-00002", [0], ITEMS[4:]),
    ]
    assert list(plan.parts()) == parts
    assert [plan.part(number) for number in plan.part_numbers] == parts
    assert plan.sizes == {0: 2, 1: 2, 2: 1}
    assert (plan.count, plan.next_number) == (5, 3)
    with pytest.raises(DataError, match="has no part-00003"):
        plan.part(3)


def test_the_file_has_the_documented_columns_and_a_row_group_for_each_part(tmp_path: Path) -> None:
    update_plan(tmp_path, iter(ITEMS), part_size=2)
    file = parquet.ParquetFile(tmp_path / PLAN)
    assert " ".join(file.schema_arrow.names) == (
        "part row key text size mtime_ns error ref path offset length row_group row_in_group "
        "column field"
    )
    assert [file.metadata.row_group(number).num_rows for number in range(3)] == [2, 2, 1]
    table = file.read()
    assert table.column("part").to_pylist() == [0, 0, 1, 1, 2]
    assert table.column("row").to_pylist() == [0, 1, 0, 1, 0]
    assert table.column("key").to_pylist() == [item.key for item in ITEMS]


def test_columns_are_read_without_items(tmp_path: Path) -> None:
    update_plan(tmp_path, iter(ITEMS), part_size=3)
    tables = list(Plan(tmp_path).tables(["key", "row"]))
    assert [(number, table.to_pydict()) for number, table in tables] == [
        (0, {"key": ["a.jpg", "t/b", "c"], "row": [0, 1, 2]}),
        (1, {"key": ["d", "é\n"], "row": [0, 1]}),
    ]


def test_parts_are_pending_until_they_have_a_file(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / "in" / str(number), b"%d" % number)
    update_plan(tmp_path / "out", listed(tmp_path / "in"), part_size=2)
    plan = Plan(tmp_path / "out")
    assert list(plan.pending) == [0, 1, 2]
    encode(tmp_path / "out", [1])
    assert list(plan.pending) == [0, 2]


def test_the_digest_is_that_of_the_rows(tmp_path: Path) -> None:
    digests = set()
    variants = [
        ITEMS,
        ITEMS[::-1],
        ITEMS[:-1],
        [*ITEMS[:-1], Item("e", FileImage("/x/é"), None, 2**40, 2**62)],
        [*ITEMS[:-1], Item("é\n", FileImage("/x/é"), None, 2**40, 5)],
        [*ITEMS[:-1], Item("é\n", FileImage("/y/é"), None, 2**40, 2**62)],
        [*ITEMS[:-1], Item("é\n", FileImage("/x/é"), "", 2**40, 2**62)],
    ]
    for number, items in enumerate(variants):
        out = tmp_path / str(number)
        digests.add(update_plan(out, iter(items), part_size=2).plan.digest)
        same = tmp_path / f"same {number}"
        assert update_plan(same, iter(items), part_size=2).plan.digest == Plan(out).digest
    digests.add(update_plan(tmp_path / "size", iter(ITEMS), part_size=3).plan.digest)
    assert len(digests) == len(variants) + 1


def test_a_plan_that_was_replaced_is_not_mixed_with_the_new_one(tmp_path: Path) -> None:
    update_plan(tmp_path, iter(ITEMS), part_size=2)
    old = Plan(tmp_path)
    reading = old.parts()
    next(reading)
    update_plan(tmp_path, iter(ITEMS[:2]), part_size=2)
    assert list(next(reading).items) == ITEMS[2:4]  # what is open stays
    with pytest.raises(DataError, match="has changed meanwhile"):
        old.part(1)
    with pytest.raises(DataError, match="has changed meanwhile"):
        next(old.parts())


def test_a_folder_without_a_plan_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    assert find_plan(tmp_path) is None
    with pytest.raises(DataError, match=r"has no plan .*Run `hfclip embed` first"):
        Plan(tmp_path)
    (tmp_path / PLAN).parent.mkdir()
    parquet.write_table(pyarrow.table({"key": ["a"]}), tmp_path / PLAN)
    with pytest.raises(DataError, match="is damaged or is no plan"):
        Plan(tmp_path)
    (tmp_path / PLAN).write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is damaged"):
        find_plan(tmp_path)


def test_a_copy_of_a_collection_keeps_its_plan(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a", b"a")
    run(tmp_path / "in", tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    assert run(tmp_path / "in", tmp_path / "copy")[1] == []
