"""The division into training, validation and test."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from hfclip.data.records import Split
from hfclip.errors import DataError
from hfclip.probing.division import (
    Division,
    Rows,
    divide,
    drawn,
    few_of_each_class,
    part_of_each_class,
)


def digests(contents: Sequence[int]) -> NDArray[np.uint8]:
    """Returns a digest for each number."""
    return np.array([list(number.to_bytes(32, "big")) for number in contents], np.uint8)


def rows(targets: Sequence[int], contents: Sequence[int] | None = None, seed: int = 0) -> Rows:
    numbers = range(len(targets)) if contents is None else contents
    return drawn(digests(list(numbers)), np.array(targets, np.int64), seed)


def sides(division: Division) -> list[list[int]]:
    return [side.tolist() for side in (division.train, division.validation, division.test)]


def test_each_class_gives_its_share_to_the_test_and_to_validation() -> None:
    targets = [0] * 100 + [1] * 50 + [2] * 10
    division = divide(rows(targets), [None] * 160)
    assert [
        np.bincount(np.array(targets)[side], minlength=3).tolist()
        for side in (division.test, division.validation, division.train)
    ] == [[20, 10, 2], [8, 4, 1], [72, 36, 7]]
    assert sorted(np.concatenate([division.train, division.validation, division.test])) == list(
        range(160)
    )
    assert (division.given, division.left_out) == ((), 0)


def test_the_division_depends_on_the_seed_and_the_contents_not_on_the_order() -> None:
    targets = [number % 2 for number in range(60)]
    order = np.random.default_rng(3).permutation(60)
    same = divide(rows(targets), [None] * 60)
    shuffled = divide(rows([targets[place] for place in order], order.tolist()), [None] * 60)
    for side, other in zip(sides(same), sides(shuffled), strict=True):
        assert side == sorted(order[other].tolist())
    assert sides(divide(rows(targets), [None] * 60)) == sides(same)
    assert sides(divide(rows(targets, seed=1), [None] * 60)) != sides(same)


def test_equal_contents_are_on_one_side() -> None:
    contents = [number // 3 for number in range(120)]
    division = divide(rows([number // 60 for number in range(120)], contents), [None] * 120)
    found = [{contents[row] for row in side} for side in sides(division)]
    assert not found[0] & found[1]
    assert not found[0] & found[2]
    assert not found[1] & found[2]
    assert [len(side) for side in found] == [28, 4, 8]


def test_a_class_with_one_content_stays_in_training() -> None:
    division = divide(rows([0] * 10 + [1, 2, 2], [*range(11), 11, 11]), [None] * 13)
    assert {10, 11, 12} <= set(division.train.tolist())
    assert len(division.test) == 2


def test_given_splits_are_kept() -> None:
    splits: list[Split | None] = ["train", "validation", "test", "test", "train"]
    division = divide(rows([0, 0, 0, 1, 1]), splits)
    assert sides(division) == [[0, 4], [1], [2, 3]]
    assert division.given == ("train", "validation", "test")


def test_validation_is_divided_off_train_where_it_is_not_given() -> None:
    names: tuple[Split, Split] = ("train", "test")
    splits = [names[number >= 20] for number in range(25)]
    division = divide(rows([number % 2 for number in range(25)]), splits)
    assert division.test.tolist() == [20, 21, 22, 23, 24]
    assert (len(division.train), len(division.validation)) == (18, 2)
    assert division.given == ("train", "test")


def test_without_a_test_the_given_validation_is_the_test() -> None:
    names: tuple[Split, Split] = ("train", "validation")
    splits = [names[number >= 20] for number in range(25)]
    division = divide(rows([number % 2 for number in range(25)]), splits)
    assert division.test.tolist() == [20, 21, 22, 23, 24]
    assert (len(division.train), len(division.validation)) == (18, 2)


def test_contents_of_the_test_are_left_out_of_given_training() -> None:
    splits: list[Split | None] = ["train", "train", "validation", "validation", "test", "train"]
    division = divide(rows([0, 1, 0, 1, 0, 1], [5, 6, 6, 7, 5, 8]), splits)
    assert sides(division) == [[5], [2, 3], [4]]
    assert division.left_out == 2


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", "test", None, "test"], r"1 of 4 labelled pictures are in no split.*random"),
        (["test", "validation", "test", "test"], "test, validation, and none is in train"),
    ],
)
def test_splits_of_some_rows_or_without_train_are_refused(
    splits: list[Split | None], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        divide(rows([0, 1, 0, 1]), splits)


def test_a_side_without_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="No picture is left for the test"):
        divide(rows([0, 1, 2]), [None] * 3)
    with pytest.raises(DataError, match="No picture is left for the training"):
        divide(rows([0, 1], [4, 4]), ["train", "test"])


def test_few_of_each_class_are_distinct_contents_drawn_by_the_seed() -> None:
    contents = [number // 2 for number in range(40)] + [90, 91]
    targets = [number // 20 for number in range(40)] + [2, 2]
    few = few_of_each_class(rows(targets, contents), 5)
    assert np.bincount(np.array(targets)[few]).tolist() == [5, 5, 2]
    assert len({contents[row] for row in few}) == 12
    assert few.tolist() == few_of_each_class(rows(targets, contents), 5).tolist()
    assert few.tolist() != few_of_each_class(rows(targets, contents, seed=1), 5).tolist()


def test_a_part_is_at_least_one_content_and_never_all() -> None:
    assert part_of_each_class(rows([0, 0, 1, 1]), 0.01).sum() == 2
    assert part_of_each_class(rows([0, 0, 1, 1]), 0.99).sum() == 2
    assert part_of_each_class(rows([0, 1]), 0.5).sum() == 0
