"""The second run: exactly what has changed is encoded, and every row is right."""

import os
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from embedded import encode, expected, killed_everywhere, listed, live, run, touch, vector, write

from hfclip.data.references import FileImage, TarImage
from hfclip.embedding.changes import Changes, update_plan
from hfclip.embedding.items import Item
from hfclip.embedding.part_files import complete_parts, digest_file, part_file
from hfclip.embedding.plan import PLAN, Plan, find_plan
from hfclip.errors import ArgumentError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(10):
        write(tmp_path / "in" / f"{number}.jpg", f"content {number}".encode())
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def counts(changes: Changes) -> tuple[int, int, int, int, int]:
    return changes.new, changes.changed, changes.deleted, changes.moved, changes.unchanged


def test_the_first_run_plans_parts_in_the_order_of_the_items(folder: Path, out: Path) -> None:
    changes, keys = run(folder, out)
    assert counts(changes) == (10, 0, 0, 0, 0)
    assert changes.pending == (0, 1, 2)
    assert keys == [f"in/{number}.jpg" for number in range(10)]
    assert live(out) == expected(folder)
    assert [len(part.items) for part in Plan(out).parts()] == [4, 4, 2]


def test_the_same_run_again_has_nothing_to_do_and_writes_no_plan(folder: Path, out: Path) -> None:
    first, _ = run(folder, out)
    before = (out / PLAN).stat().st_ino
    again, keys = run(folder, out, part_size=3)
    assert (counts(again), again.pending, keys) == ((0, 0, 0, 0, 10), (), [])
    assert again.plan.digest == first.plan.digest
    assert (out / PLAN).stat().st_ino == before


def test_exactly_the_changes_among_5000_files_are_encoded(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    names = [folder / f"{number % 50:02}" / f"{number:04}.jpg" for number in range(5_000)]
    for number, path in enumerate(names):
        write(path, b"%06d" % number)  # all of one size
    run(folder, out, part_size=600)
    new = [folder / "new" / f"{number}.jpg" for number in range(250)]
    for number, path in enumerate(new):
        write(path, b"new%03d" % number)
    for number, path in enumerate(changed := names[0:250]):
        write(path, b"chg%03d" % number)
    for path in names[250:500]:
        path.unlink()
    for path in names[500:750]:
        (folder / "moved").mkdir(exist_ok=True)
        path.rename(folder / "moved" / path.name)
    changes, keys = run(folder, out, part_size=600)
    assert counts(changes) == (250, 250, 250, 250, 4_250)
    wanted = [path.relative_to(tmp_path).as_posix() for path in sorted([*new, *changed])]
    assert keys == wanted
    assert live(out) == expected(folder)
    assert run(folder, out)[1] == []


def test_a_touched_file_keeps_its_row_and_is_not_hashed_again(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, out)
    touch(folder / "3.jpg")
    changes, keys = run(folder, out)
    assert (counts(changes), keys) == ((0, 0, 0, 0, 10), [])
    assert live(out) == expected(folder)
    monkeypatch.setattr(FileImage, "read", lambda image: pytest.fail(f"{image.path} was read"))
    changes = update_plan(out, listed(folder), part_size=4)
    assert counts(changes) == (0, 0, 0, 0, 10)


def test_a_file_with_another_size_is_changed_and_not_hashed(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, out)
    write(folder / "3.jpg", b"much longer content")
    monkeypatch.setattr(FileImage, "read", lambda image: pytest.fail(f"{image.path} was read"))
    changes = update_plan(out, listed(folder), part_size=4)
    assert counts(changes) == (0, 1, 0, 0, 9)
    assert changes.pending == (3,)


def test_swapped_contents_swap_the_rows_without_encoding(folder: Path, out: Path) -> None:
    run(folder, out)
    (folder / "1.jpg").rename(folder / "swap")
    (folder / "2.jpg").rename(folder / "1.jpg")
    (folder / "swap").rename(folder / "2.jpg")
    changes, keys = run(folder, out)
    assert (counts(changes), keys) == ((0, 0, 0, 2, 8), [])
    assert live(out) == expected(folder)


def test_of_a_moved_file_and_its_copy_one_is_encoded(folder: Path, out: Path) -> None:
    run(folder, out)
    shutil.copy2(folder / "4.jpg", folder / "copy.jpg")
    (folder / "4.jpg").rename(folder / "moved.jpg")
    changes, keys = run(folder, out)
    assert counts(changes) == (1, 0, 0, 1, 9)
    assert keys == ["in/moved.jpg"]
    assert live(out) == expected(folder)


def test_files_of_equal_content_move_each_to_a_row_of_its_own(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a", "b", "c"):
        write(folder / name, b"equal")
    run(folder, out)
    for name in ("a", "b", "c"):
        (folder / name).rename(folder / f"new-{name}")
    changes, keys = run(folder, out)
    assert (counts(changes), keys) == ((0, 0, 0, 3, 0), [])
    assert live(out) == expected(folder)
    places = [(part.number, row) for part in Plan(out).parts() for row in part.rows]
    assert sorted(places) == [(0, 0), (0, 1), (0, 2)]


def test_a_file_that_gets_the_content_of_another_is_encoded(folder: Path, out: Path) -> None:
    run(folder, out)
    write(folder / "1.jpg", b"content 2")
    changes, keys = run(folder, out)
    assert (counts(changes), keys) == ((0, 1, 0, 0, 9), ["in/1.jpg"])
    assert live(out) == expected(folder)


def test_a_file_that_replaces_another_keeps_its_embedding(folder: Path, out: Path) -> None:
    run(folder, out)
    (folder / "1.jpg").replace(folder / "2.jpg")
    changes, keys = run(folder, out)
    assert (counts(changes), keys) == ((0, 0, 0, 1, 8), [])
    assert live(out) == expected(folder)


def test_rehash_finds_a_change_of_equal_size_and_time(folder: Path, out: Path) -> None:
    run(folder, out)
    path = folder / "5.jpg"
    before = path.stat()
    path.write_bytes(b"CONTENT 5")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(folder, out)[1] == []
    changes, keys = run(folder, out, rehash=True)
    assert (counts(changes), keys) == ((0, 1, 0, 0, 9), ["in/5.jpg"])
    assert live(out) == expected(folder)
    assert run(folder, out, rehash=True)[1] == []


def test_another_folder_with_equal_keys_sizes_and_times_is_compared_by_content(
    folder: Path, out: Path, tmp_path: Path
) -> None:
    run(folder, out)
    other = tmp_path / "elsewhere" / "in"
    shutil.copytree(folder, other)
    path, before = other / "5.jpg", (folder / "5.jpg").stat()
    path.write_bytes(b"CONTENT 5")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changes, keys = run(other, out)
    assert (counts(changes), keys) == ((0, 1, 0, 0, 9), ["in/5.jpg"])
    assert live(out) == expected(other)


def test_everything_that_is_gone_disappears_with_its_parts(folder: Path, out: Path) -> None:
    run(folder, out)
    for number in range(4):
        (folder / f"{number}.jpg").unlink()
    changes, keys = run(folder, out)
    assert (counts(changes), keys) == ((0, 0, 4, 0, 6), [])
    assert complete_parts(out) == [1, 2]
    assert not (out / digest_file(0)).exists()
    assert live(out) == expected(folder)
    write(folder / "new", b"new")
    assert run(folder, out)[0].pending == (3,)  # numbers are never used twice


def test_without_digests_a_touched_file_is_encoded_again(folder: Path, out: Path) -> None:
    run(folder, out)
    (out / digest_file(0)).unlink()
    (out / digest_file(1)).write_bytes(b"too short")
    touch(folder / "0.jpg")
    touch(folder / "4.jpg")
    (folder / "1.jpg").rename(folder / "moved")
    assert run(folder, out)[1] == ["in/0.jpg", "in/4.jpg", "in/moved"]
    assert live(out) == expected(folder)


def test_an_unreadable_file_of_another_time_is_encoded_again(folder: Path, out: Path) -> None:
    run(folder, out)

    def items() -> Iterator[Item]:
        for item in listed(folder):
            is_gone = item.key == "in/3.jpg"
            yield replace(item, image=FileImage("/nowhere"), mtime_ns=1) if is_gone else item

    changes = update_plan(out, items(), part_size=4)
    assert (counts(changes), changes.pending) == ((0, 1, 0, 0, 9), (3,))


def test_inputs_that_failed_are_tried_again_only_if_they_changed_or_on_request(
    folder: Path, out: Path
) -> None:
    for name in ("broken", "unread"):
        write(folder / f"{name}.jpg", f"{name} 1".encode())
    run(folder, out)
    assert live(out) == expected(folder)
    assert run(folder, out)[1] == []
    changes, keys = run(folder, out, retry_errors=True)
    assert keys == ["in/broken.jpg", "in/unread.jpg"]
    assert (counts(changes), changes.retried) == ((0, 0, 0, 0, 12), 2)
    assert live(out) == expected(folder)
    write(folder / "broken.jpg", b"mended")
    assert run(folder, out)[1] == ["in/broken.jpg"]
    assert live(out)["in/broken.jpg"] == vector(b"mended")


def test_a_failed_input_is_not_recognized_elsewhere(folder: Path, out: Path) -> None:
    write(folder / "broken.jpg", b"broken 1")
    run(folder, out)
    (folder / "broken.jpg").rename(folder / "moved.jpg")
    changes, keys = run(folder, out)
    assert (counts(changes), keys) == ((1, 0, 1, 0, 10), ["in/moved.jpg"])


def test_a_picture_that_gets_a_raw_files_name_is_encoded_again(folder: Path, out: Path) -> None:
    run(folder, out)
    (folder / "1.jpg").rename(folder / "1.dng")
    (folder / "2.jpg").rename(folder / "2.png")
    assert run(folder, out)[1] == ["in/1.dng"]


def test_an_input_that_cannot_be_listed_any_more_is_changed(folder: Path, out: Path) -> None:
    run(folder, out)
    failed = [
        Item(item.key, None, None, error="denied") if item.key == "in/3.jpg" else item
        for item in listed(folder)
    ]
    changes = update_plan(out, iter(failed), part_size=4)
    assert (counts(changes), changes.pending) == ((0, 1, 0, 0, 9), (3,))
    assert next(iter(changes.plan.part(3).items)).error == "denied"
    assert counts(update_plan(out, iter(failed), part_size=4)) == (0, 0, 0, 0, 10)


def test_a_new_caption_is_a_change(folder: Path, out: Path) -> None:
    captioned = [replace(item, text="red") for item in listed(folder)]
    encode(out, update_plan(out, iter(captioned), part_size=4).pending)
    captioned[2] = replace(captioned[2], text="blue")
    changes = update_plan(out, iter(captioned), part_size=4)
    assert (counts(changes), changes.pending) == ((0, 1, 0, 0, 9), (3,))


def test_texts_are_compared_by_text_and_follow_their_line(out: Path) -> None:
    def lines(*texts: str, mtime: int) -> Iterator[Item]:
        for number, text in enumerate(texts, 1):
            yield Item(f"a.txt:{number}", None, text, len(text), mtime)

    encode(out, update_plan(out, lines("one", "two", "six", mtime=1), part_size=2).pending)
    changes = update_plan(out, lines("one", "two", "six", mtime=2), part_size=2)
    assert (counts(changes), changes.pending) == ((0, 0, 0, 0, 3), ())
    changes = update_plan(out, lines("new", "one", "two", "six", mtime=3), part_size=2)
    assert counts(changes) == (0, 1, 0, 3, 0)
    assert [item.text for item in changes.plan.part(changes.pending[0]).items] == ["new"]
    values = {key: vector(text) for key, text in zip(
        ["a.txt:2", "a.txt:3", "a.txt:4"], [b"one", b"two", b"six"], strict=True)}  # fmt: skip
    assert live(out) == values


def test_a_rewritten_tar_keeps_the_rows_of_equal_samples(tmp_path: Path, out: Path) -> None:
    tar = tmp_path / "a.tar"

    def samples(content: bytes, size: int) -> Iterator[Item]:
        write(tar, content)
        mtime = tar.stat().st_mtime_ns
        for number, start in enumerate(range(0, len(content), size)):
            reference = TarImage(str(tar), start, size)
            yield Item(f"a.tar/{number}", reference, None, size, mtime)

    encode(out, update_plan(out, samples(b"aaabbbccc", 3), part_size=2).pending)
    changes = update_plan(out, samples(b"xxxaaabbb", 3), part_size=2)
    assert counts(changes) == (0, 1, 0, 2, 0)
    assert live(out) == {"a.tar/1": vector(b"aaa"), "a.tar/2": vector(b"bbb")}
    encode(out, changes.pending)
    assert live(out)["a.tar/0"] == vector(b"xxx")


def test_an_input_that_is_listed_twice_is_one_and_two_with_one_key_are_an_error(
    folder: Path, out: Path
) -> None:
    twice = [*listed(folder), *listed(folder), *listed(folder)]
    changes = update_plan(out, iter(twice), part_size=4)
    assert counts(changes) == (10, 0, 0, 0, 0)
    encode(out, changes.pending)
    assert live(out) == expected(folder)
    other = replace(twice[0], image=FileImage("/other"))
    with pytest.raises(DataError, match=r"1 keys belong to more than one input, 'in/0\.jpg' first"):
        update_plan(out, iter([*twice, other]), part_size=4)
    assert live(out) == expected(folder)


@pytest.mark.parametrize("done", [(0, 2, 5), (6,), (1, 3, 4), (), (0, 1, 2, 3, 4, 5, 6)])
def test_an_interrupted_run_resumes_to_the_same_result(
    folder: Path, tmp_path: Path, done: tuple[int, ...]
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(folder, whole, part_size=3)
    for number in range(10, 20):
        write(folder / f"{number}.jpg", f"content {number}".encode())
    shutil.rmtree(whole)
    run(folder, whole, part_size=3)
    changes = update_plan(resumed, listed(folder), part_size=3)
    assert changes.pending == tuple(range(7))
    encode(resumed, done)
    again, keys = run(folder, resumed, part_size=5)  # the planned parts keep their size
    assert again.pending == tuple(sorted(set(range(7)) - set(done)))
    assert len(keys) == 20 - sum(len(Plan(whole).part(number).items) for number in done)
    assert again.plan.digest == Plan(whole).digest
    assert list(Plan(resumed).parts()) == list(Plan(whole).parts())
    for number in range(7):
        assert (resumed / part_file(number)).read_bytes() == (
            whole / part_file(number)
        ).read_bytes()


def test_a_planned_part_stays_if_its_files_change_and_is_divided_anew_if_one_is_gone(
    folder: Path, out: Path
) -> None:
    update_plan(out, listed(folder), part_size=4)
    encode(out, [1])
    write(folder / "1.jpg", b"changed before it was encoded")
    changes = update_plan(out, listed(folder), part_size=4)
    assert (counts(changes), changes.pending) == ((0, 1, 0, 0, 9), (0, 2))
    (folder / "2.jpg").unlink()
    changes, keys = run(folder, out)
    assert (counts(changes), changes.pending) == ((0, 0, 1, 0, 9), (2, 3))
    assert keys == ["in/8.jpg", "in/9.jpg", "in/0.jpg", "in/1.jpg", "in/3.jpg"]
    assert live(out) == expected(folder)


def test_a_part_that_was_deleted_is_encoded_again(folder: Path, out: Path) -> None:
    run(folder, out)
    (folder / "1.jpg").unlink()
    run(folder, out)
    (out / part_file(0)).unlink()
    (out / part_file(1)).unlink()
    assert run(folder, out)[0].pending == (1, 3)
    assert live(out) == expected(folder)


def test_a_damaged_part_is_an_error_that_says_what_to_do(folder: Path, out: Path) -> None:
    run(folder, out)
    content = (out / part_file(1)).read_bytes()
    (out / part_file(1)).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"part-00001\.parquet is not a Parquet file, or is dam"):
        run(folder, out)
    (out / part_file(1)).write_bytes((out / part_file(2)).read_bytes())
    with pytest.raises(DataError, match=r"has 2 rows; the plan names row 3\. Delete"):
        run(folder, out)
    (out / part_file(1)).unlink()
    run(folder, out)
    assert live(out) == expected(folder)


def test_parts_without_a_plan_are_refused(folder: Path, out: Path) -> None:
    run(folder, out)
    shutil.rmtree(out / ".hfclip")
    with pytest.raises(DataError, match=r"has parts but no plan\. The hidden folder \.hfclip"):
        run(folder, out)
    assert complete_parts(out) == [0, 1, 2]


def test_an_error_while_listing_changes_nothing(folder: Path, out: Path) -> None:
    first, _ = run(folder, out)

    def items() -> Iterator[Item]:
        yield from list(listed(folder))[:3]
        raise DataError("the tar is damaged")

    with pytest.raises(DataError, match="the tar is damaged"):
        update_plan(out, items(), part_size=4)
    assert Plan(out).digest == first.plan.digest
    assert sorted(path.name for path in (out / ".hfclip").iterdir()) == ["content", "plan.parquet"]


def test_no_input_gives_an_empty_plan(out: Path) -> None:
    changes = update_plan(out, iter(()), part_size=4)
    assert (counts(changes), changes.pending, changes.plan.count) == ((0, 0, 0, 0, 0), (), 0)
    assert list(Plan(out).parts()) == []


def test_a_part_size_below_1_is_refused(out: Path) -> None:
    with pytest.raises(ArgumentError, match="part_size is 0"):
        update_plan(out, iter(()), part_size=0)


def test_a_first_run_that_is_killed_at_any_step_can_be_continued(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def after(step: int) -> None:
        if find_plan(out) is not None:
            assert live(out).items() <= expected(folder).items()
        run(folder, out)
        assert live(out) == expected(folder), step
        shutil.rmtree(out)

    # the plan: 2 syncs, 1 rename, 1 removal; 3 parts of 2 files; the listing: 1 removal
    assert killed_everywhere(lambda: run(folder, out), after) > 20


def test_a_second_run_that_is_killed_at_any_step_can_be_continued(
    folder: Path, tmp_path: Path
) -> None:
    earlier, out, before = tmp_path / "earlier", tmp_path / "out", expected(folder)
    run(folder, earlier)
    for number in range(4):
        (folder / f"{number}.jpg").unlink()  # a whole part
    write(folder / "4.jpg", b"changed 4")
    (folder / "5.jpg").rename(folder / "moved.jpg")
    write(folder / "new.jpg", b"new")
    shutil.copytree(earlier, out)
    possible = [*before.items(), *expected(folder).items()]

    def after(step: int) -> None:
        assert all(entry in possible for entry in live(out).items())
        run(folder, out)
        assert live(out) == expected(folder), step
        shutil.rmtree(out)
        shutil.copytree(earlier, out)

    assert killed_everywhere(lambda: run(folder, out), after) > 10


def test_memory_grows_by_at_most_200_bytes_with_each_input(tmp_path: Path) -> None:
    def items(count: int) -> Iterator[Item]:
        for number in range(count):
            name = f"{number:08}.jpg"
            yield Item(f"photos/{name}", FileImage(f"/photos/{name}"), None, number % 99, number)

    def peak(count: int) -> int:
        tracemalloc.start()
        changes = update_plan(tmp_path / str(count), items(count), part_size=5_000)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert changes.plan.count == count
        return found

    peak(1)  # imports
    for _ in range(2):  # the first and the second run
        assert (peak(30_000) - peak(10_000)) / 20_000 < 200
