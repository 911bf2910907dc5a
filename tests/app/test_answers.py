"""Classifying and comparing on a page gives the values of the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import hfclip
from hfclip.app.answers import (
    Classified,
    Comparison,
    classify,
    compare,
    csv_of_cosines,
    csv_of_labels,
    table_of,
)
from hfclip.app.demo import Demo, open_demo
from hfclip.app.limits import Limits
from hfclip.app.times import Watch
from hfclip.cli import main
from hfclip.errors import ImageError, LabelError
from hfclip.releases import bundled_folder
from hfclip.zeroshot.labels import Guess

SEVEN, TWO = (str(bundled_folder("digits") / f"{word}.png") for word in ("seven", "two"))
LABELS = "zero\none\ntwo\nseven"
TEMPLATE = "a handwritten {}"


def test_labels_have_the_probabilities_of_the_command(alone: Demo) -> None:
    found = classify(alone, [SEVEN, TWO], LABELS, TEMPLATE, Watch())
    command = ["classify", SEVEN, TWO, "--labels", LABELS.replace("\n", ","), "--model", "digits"]
    result = CliRunner().invoke(
        main, [*command, "--template", TEMPLATE, "--backend", "torch", "--json"]
    )
    expected = [[Guess(**guess) for guess in row["labels"]] for row in json.loads(result.stdout)]
    assert [one.outcome for one in found] == expected
    assert [one.name for one in found] == ["seven.png", "two.png"]
    assert found[0].outcome[0].label == "seven"  # type: ignore[index]


def test_a_broken_picture_does_not_stop_the_others(alone: Demo, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    found = classify(alone, [str(broken), TWO], LABELS, TEMPLATE, Watch())
    assert isinstance(found[0].outcome, ImageError)
    assert str(found[0].outcome) == "broken.png: not a picture that Pillow can read."
    assert found[1].outcome[0].label == "two"  # type: ignore[index]


def test_more_pictures_than_a_batch_keep_their_order(alone: Demo, tmp_path: Path) -> None:
    paths = []
    for number in range(20):
        paths.append(str(tmp_path / f"{number:02}.png"))
        Image.open(SEVEN if number % 2 else TWO).save(paths[-1])
    found = classify(alone, paths, LABELS, TEMPLATE, Watch())
    assert [one.name for one in found] == [f"{number:02}.png" for number in range(20)]
    assert [one.outcome[0].label for one in found] == ["two", "seven"] * 10  # type: ignore[index]


def test_the_same_labels_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = open_demo("digits", device="cpu")
    encoded = []
    encode = demo.loaded.model.encode_text

    def encode_and_count(ids: torch.Tensor) -> torch.Tensor:
        encoded.append(len(ids))
        return encode(ids)

    monkeypatch.setattr(demo.loaded.model, "encode_text", encode_and_count)
    for labels in (LABELS, LABELS, "zero\none"):
        classify(demo, [SEVEN], labels, TEMPLATE, Watch())
    assert encoded == [4, 2]


def test_only_the_last_lists_of_labels_are_kept(alone: Demo) -> None:
    for number in range(40):
        classify(alone, [SEVEN], f"label {number}", TEMPLATE, Watch())
    assert len(alone.label_features._values) == 16


def test_requests_beyond_the_limits_are_refused_before_a_picture_is_read(alone: Demo) -> None:
    with pytest.raises(ImageError, match=r"33 pictures are too many"):
        classify(alone, ["missing.png"] * 33, LABELS, TEMPLATE, Watch())
    with pytest.raises(LabelError, match=r"no {}"):
        classify(alone, ["missing.png"], LABELS, "no place", Watch())


def test_a_picture_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    demo = open_demo("digits", device="cpu", limits=Limits(pixels=1_000))
    Image.new("L", (100, 100)).save(tmp_path / "large.png")
    [found] = classify(demo, [str(tmp_path / "large.png")], LABELS, TEMPLATE, Watch())
    assert "100 x 100 pixels are too many" in str(found.outcome)


def test_cosines_are_those_of_the_model(alone: Demo) -> None:
    found = compare(alone, [SEVEN, TWO], "a handwritten seven\nsomething else", Watch())
    model, preprocess = hfclip.load("digits", device="cpu")
    pixels = torch.stack([preprocess(Image.open(path)) for path in (SEVEN, TWO)])
    with torch.no_grad():
        images = model.encode_image(pixels)
        texts = model.encode_text(hfclip.tokenize(["a handwritten seven", "something else"]))
    expected = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=-1)
    np.testing.assert_allclose(found.cosines, expected.numpy(), atol=1e-6)
    assert found.names == ("seven.png", "two.png")
    assert found.cosines[0, 0] > found.cosines[1, 0]


def test_a_comparison_leaves_out_broken_pictures_and_reports_them(
    alone: Demo, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    found = compare(alone, [str(broken), TWO], "a\nb", Watch())
    assert (found.names, found.paths, found.cosines.shape) == (("two.png",), (TWO,), (1, 2))
    assert [str(error) for error in found.errors] == [
        "broken.png: not a picture that Pillow can read."
    ]
    with pytest.raises(ImageError, match=r"broken.png"):
        compare(alone, [str(broken)], "a", Watch())


def test_a_table_has_the_best_labels_of_each_picture_or_its_error() -> None:
    found = [
        Classified("a.png", [Guess("cat", 0.5), Guess("dog", 0.3), Guess("cow", 0.2)]),
        Classified("b.png", ImageError("b.png: broken.")),
    ]
    assert table_of(found) == (
        ["picture", "label", "probability", "next labels"],
        [
            ["a.png", "cat", "50.0%", "dog 30.0%, cow 20.0%"],
            ["b.png", "", "", "b.png: broken."],
        ],
    )


def test_csv_files_have_all_values_and_no_formula() -> None:
    found = [
        Classified('=1+1,"x".png', [Guess("cat", 0.5), Guess("-1+1", 0.25)]),
        Classified("b.png", ImageError("b.png: broken.")),
    ]
    assert csv_of_labels(found) == (
        "picture,label,probability,error\r\n"
        '"\'=1+1,""x"".png",cat,0.500000,\r\n'
        '"\'=1+1,""x"".png",\'-1+1,0.250000,\r\n'
        "b.png,,,b.png: broken.\r\n"
    )
    cosines = np.array([[0.25, -0.5]], np.float32)
    comparison = Comparison(("a.png",), ("a.png",), ("cat", "dog"), cosines, ())
    assert csv_of_cosines(comparison) == "picture,cat,dog\r\na.png,0.250000,-0.500000\r\n"
