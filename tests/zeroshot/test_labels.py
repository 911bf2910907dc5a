import subprocess
import sys
import time
from collections.abc import Callable
from enum import Enum
from typing import Any, cast

import numpy as np
import pytest

import hfclip
from hfclip.zeroshot.labels import check_labels, check_templates, make_caption


class Animal(str, Enum):  # noqa: UP042  # its str() is not its value
    CAT = "cat"
    DOG = "dog"


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog"],
        ("cat", "dog"),
        {"cat": 1, "dog": 2}.keys(),
        {1: "cat", 2: "dog"}.values(),
        (word for word in ("cat", "dog")),
        map(str.lower, ["CAT", "DOG"]),
        np.array(["cat", "dog"]),
        np.array(["cat", "dog"], dtype=object),
        Animal,
    ],
    ids=lambda labels: type(labels).__name__,
)
def test_labels_may_be_any_iterable(labels: Any) -> None:
    checked = check_labels(labels)
    assert checked == ("cat", "dog")
    assert {type(label) for label in checked} == {str}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"n01440764": "tench"},
            r"`labels` has type dict; pass its \.keys\(\) or its \.values\(\)",
        ),
        (7, "`labels` has type int; expected a list of strings"),
        (None, "`labels` has type NoneType; expected a list"),
        (["cat", 3], "Label 1 is 3, of type int; expected a string"),
        ([b"cat"], "Label 0 is b'cat', of type bytes"),
        (np.array([["cat", "dog"]]), "Label 0 is .*, of type ndarray"),
        (np.array(3), "`labels` has type ndarray"),
        ([None], "Label 0 is None, of type NoneType"),
    ],
)
def test_labels_of_another_type_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(hfclip.ArgumentTypeError, match=message):
        check_labels(labels)


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        (3, "`templates` has type int"),
        (lambda label: label, "`templates` has type function"),
        ([3], "Template 0 is 3, of type int; expected a string with {}"),
        (["a {}", None], "Template 1 is None, of type NoneType"),
    ],
)
def test_templates_of_another_type_are_refused(templates: Any, message: str) -> None:
    with pytest.raises(hfclip.ArgumentTypeError, match=message):
        check_templates(templates)


def test_a_template_is_a_string_or_a_function() -> None:
    assert make_caption("a {} and a {}", "{cat}") == "a {cat} and a {cat}"
    assert make_caption(lambda label: f"itap of a {label}.", "cat") == "itap of a cat."
    with pytest.raises(hfclip.ArgumentTypeError, match="returns None for the label 'cat'"):
        make_caption(lambda label: None, "cat")  # type: ignore[arg-type, return-value]


MANY = [f"label {number}" for number in range(20_000)]


@pytest.mark.parametrize(
    ("check", "end"),
    [
        (lambda: check_labels([*MANY, " "]), "label 20000, counted from 0, is empty. Give at"),
        (lambda: check_labels([*MANY, *MANY]), "label 4 and 19995 more. Give each label once."),
        (lambda: check_labels(["x" * 10_000] * 2), "Give each label once."),
        (lambda: check_templates([*[f"{{}} {label}" for label in MANY], "x"]), "template 20000"),
        (lambda: check_templates(["x" * 10_000]), "template 0"),
        (lambda: check_labels([*MANY, "x" * 10_000, cast("str", 3)]), "Label 20001 is 3"),
    ],
)
def test_a_message_about_many_labels_is_short_and_names_the_labels(
    check: Callable[[], Any], end: str
) -> None:
    with pytest.raises(hfclip.HfclipError) as caught:
        check()
    assert end in str(caught.value)
    assert len(str(caught.value)) < 400


def test_twenty_thousand_labels_are_checked_in_linear_time() -> None:
    start = time.process_time()
    assert len(check_labels(MANY)) == 20_000
    assert time.process_time() - start < 0.5  # 0.01 s; comparing all pairs took 5 s


def test_labels_are_checked_without_torch() -> None:
    code = (
        "import sys, hfclip.zeroshot.labels, hfclip.zeroshot.templates\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
