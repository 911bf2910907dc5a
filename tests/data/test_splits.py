import hashlib
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from hfclip.data.names import split_in, split_named
from hfclip.data.records import Example
from hfclip.data.references import FileImage
from hfclip.data.splits import divide


def example(number: int, label: str | None = None) -> Example:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Example(f"{number}", digest, (), label, FileImage(f"{number}"))


def digests(examples: list[Example]) -> set[str]:
    return {item.digest for item in examples}


COLLECTIONS = st.lists(
    st.builds(example, st.integers(0, 40), st.sampled_from(["a", "b", "c"])), max_size=60
)
SHARES = st.floats(0, 0.95)
SEEDS = st.integers(0, 2**32)


@settings(max_examples=200, deadline=None)
@given(COLLECTIONS, SHARES, SEEDS)
def test_every_example_is_on_one_side_and_identical_pictures_are_on_the_same(
    examples: list[Example], share: float, seed: int
) -> None:
    train, held_out = divide(examples, share, seed)
    assert sorted(item.key for item in train + held_out) == sorted(item.key for item in examples)
    assert not digests(train) & digests(held_out)


@settings(max_examples=200, deadline=None)
@given(COLLECTIONS, SHARES, SEEDS)
def test_every_class_keeps_a_picture_in_training(
    examples: list[Example], share: float, seed: int
) -> None:
    train, _ = divide(examples, share, seed)
    assert {item.label for item in train} == {item.label for item in examples}


@settings(max_examples=200, deadline=None)
@given(COLLECTIONS, st.floats(0.01, 0.95), SEEDS)
def test_there_is_validation_if_a_class_has_a_picture_to_spare(
    examples: list[Example], share: float, seed: int
) -> None:
    _, held_out = divide(examples, share, seed)
    classes = defaultdict(set)
    for item in examples:
        classes[item.label].add(item.digest)
    needed = {next(iter(one)) for one in classes.values() if len(one) == 1}
    assert bool(held_out) == bool(digests(examples) - needed)


@settings(max_examples=100, deadline=None)
@given(COLLECTIONS, SHARES, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_does_not_matter(
    examples: list[Example], share: float, seed: int, random: object
) -> None:
    expected = digests(divide(examples, share, seed)[1])
    random.shuffle(examples)  # type: ignore[attr-defined]
    assert digests(divide(examples, share, seed)[1]) == expected


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.9), SEEDS)
def test_the_validation_share_is_close_to_the_given_one(share: float, seed: int) -> None:
    examples = [example(number) for number in range(4000)]
    found = len(divide(examples, share, seed)[1]) / len(examples)
    assert abs(found - share) < 6 * (share * (1 - share) / len(examples)) ** 0.5


def test_a_picture_stays_on_its_side_when_others_are_added() -> None:
    few = [example(number, "a") for number in range(500)]
    more = [example(number, "a") for number in range(2000)]
    for share in (0.1, 0.3):
        before, after = divide(few, share, 1), divide(more, share, 1)
        assert digests(before[0]) <= digests(after[0])
        assert digests(before[1]) <= digests(after[1])


# Literals, so that a change of the rule cannot go unnoticed: a resumed training depends on it.
VALIDATION_OF_SEED_0 = ["5", "8", "9", "17", "18", "27", "28", "29"]
VALIDATION_OF_SEED_1 = ["6", "7", "10", "23", "24", "26"]


def test_the_division_is_the_same_in_every_version() -> None:
    examples = [example(number) for number in range(30)]
    assert [item.key for item in divide(examples, 0.2, 0)[1]] == VALIDATION_OF_SEED_0
    assert [item.key for item in divide(examples, 0.2, 1)[1]] == VALIDATION_OF_SEED_1


def test_a_share_of_zero_gives_no_validation() -> None:
    examples = [example(number) for number in range(30)]
    assert divide(examples, 0, 0) == (examples, [])


def test_splits_are_known_by_their_usual_names() -> None:
    assert [split_named(name) for name in ("Train", "VAL", "valid", "dev", "testing")] == [
        "train",
        "validation",
        "validation",
        "validation",
        "test",
    ]
    assert split_named("trainer") is None
    assert split_in("captions_train2017") == "train"
    assert split_in("val-00001-of-00004") == "validation"
    assert split_in("train_and_test") is None
    assert split_in("contest") is None
