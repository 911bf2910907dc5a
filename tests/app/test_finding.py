"""Searching on a page gives the results of `hfclip search`, in pages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hfclip.app.demo import Demo, open_demo
from hfclip.app.finding import Found, begin_search, near_duplicates, page_of, thumbnails
from hfclip.app.limits import Limits
from hfclip.app.times import Watch
from hfclip.cli import main
from hfclip.errors import ArgumentError, DataError, ImageError
from hfclip.releases import bundled_folder

SEVEN = str(bundled_folder("digits") / "seven.png")


def search(demo: Demo, page: int = 0, **query: Any) -> list[Found]:
    """Returns a page of results of a query."""
    given = {"words": "", "picture": None, "without": "", "like": ()} | query
    return page_of(demo, begin_search(demo, **given, watch=Watch()), page, Watch())


def command(collection: Path, *arguments: str) -> list[tuple[str, float]]:
    """Returns the results of `hfclip search`."""
    result = CliRunner().invoke(main, ["search", str(collection), *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return [(row["key"], row["score"]) for row in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ({"words": "a handwritten two"}, ["a handwritten two"]),
        ({"picture": SEVEN}, ["--image", SEVEN]),
        ({"like": ["digits/03-three.png"]}, ["--like", "digits/03-three.png"]),
        (
            {"words": "a handwritten two", "without": "a handwritten one", "picture": SEVEN},
            ["a handwritten two", "--image", SEVEN, "--without", "a handwritten one"],
        ),
    ],
    ids=["words", "picture", "like", "mixed"],
)
def test_a_page_has_the_results_of_the_command(
    query: dict[str, Any], arguments: list[str], demo: Demo, collection: Path
) -> None:
    expected = command(collection, *arguments, "--top", "60", "--device", "cpu")
    for page in (0, 1):
        found = search(demo, page, **query)
        assert [one.key for one in found] == [
            key for key, _ in expected[24 * page : 24 * page + 24]
        ]
        scores = [score for _, score in expected[24 * page : 24 * page + 24]]
        np.testing.assert_allclose([one.score for one in found], scores, atol=1e-5)


def test_pages_end_with_the_collection_and_leave_out_the_key(demo: Demo) -> None:
    begun = begin_search(demo, "", None, "", ["digits/03-three.png"], Watch())
    assert (begun.count, begun.pages, begun.words) == (99, 5, "like digits/03-three.png")
    keys = [one.key for page in range(5) for one in page_of(demo, begun, page, Watch())]
    assert (len(keys), len(set(keys)), "digits/03-three.png" in keys) == (99, 99, False)
    assert page_of(demo, begun, 5, Watch()) == []


def test_the_number_of_results_is_limited(collection: Path) -> None:
    demo = open_demo(embeddings=collection, device="cpu", limits=Limits(results=30))
    begun = begin_search(demo, "a handwritten two", None, "", (), Watch())
    assert (begun.count, begun.pages) == (30, 2)
    assert len(page_of(demo, begun, 1, Watch())) == 6


def test_an_empty_query_an_unknown_key_and_a_broken_picture_are_refused_in_words(
    demo: Demo, alone: Demo, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=r"nothing to search. Write words, or choose a picture"):
        search(demo, words="  ")
    with pytest.raises(DataError, match=r"has no key '../../etc/passwd'"):
        search(demo, like=["../../etc/passwd"])
    (tmp_path / "secret-name.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"^The picture: not a picture"):
        search(demo, picture=str(tmp_path / "secret-name.png"))
    with pytest.raises(DataError, match=r"no collection. Start it with --embeddings"):
        search(alone, words="a")


def test_equal_pictures_are_near_duplicates(demo: Demo) -> None:
    found = near_duplicates(demo, 1.0, Watch())
    assert [(one.key, one.group) for one in found.found] == [
        ("digits/00-zero.png", 1),
        ("digits/99-copy.png", 1),
    ]
    assert (found.groups, found.members) == (1, 1)
    assert found.found[1].score == pytest.approx(1, abs=1e-6)


def test_near_duplicates_are_computed_once_for_a_threshold(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    near_duplicates(demo, 0.75, Watch())
    monkeypatch.setattr("hfclip.app.finding.find_duplicates", None)
    assert near_duplicates(demo, 0.75, Watch()).groups > 1
    with pytest.raises(TypeError, match=r"NoneType"):
        near_duplicates(demo, 0.76, Watch())


def test_near_duplicates_of_a_large_collection_are_left_to_the_command(collection: Path) -> None:
    demo = open_demo(embeddings=collection, device="cpu", limits=Limits(rows=99))
    with pytest.raises(DataError, match=r"100 pictures; this page compares up to 99. Use"):
        near_duplicates(demo, 0.9, Watch())


def test_thumbnails_are_the_pictures_or_grey(demo: Demo) -> None:
    zero, wrong = Found("digits/00-zero.png", 0, 1.0), Found("digits/01-one.png", 1, 1.0)
    path = Path(demo.embeddings.out).parent / wrong.key  # type: ignore[union-attr]
    content = path.read_bytes()
    path.write_bytes(b"no longer a picture")
    try:
        good, grey = thumbnails(demo, [zero, wrong], Watch())
    finally:
        path.write_bytes(content)
    original = Image.open(path.with_name("00-zero.png")).convert("RGB")
    np.testing.assert_array_equal(np.asarray(good), np.asarray(original))
    assert (grey.size, grey.getextrema()) == ((256, 256), ((222, 222),) * 3)


def test_a_name_is_the_last_component_of_the_key() -> None:
    assert Found("a/b.png", 0, 1.0).name == "b.png"
    assert Found("a\\b.png", 0, 1.0).name == "b.png"
    assert Found("/", 0, 1.0).name == "/"


def test_a_collection_of_another_model_or_of_texts_is_refused(
    collection: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"The model is ViT-B/16, but .* was made with 'digits'"):
        open_demo("ViT-B/16", collection, device="cpu")
    (tmp_path / "texts.txt").write_text("a\nb\n")
    arguments = ["embed", str(tmp_path / "texts.txt"), "-o", str(tmp_path / "out"), "--text"]
    assert CliRunner().invoke(main, [*arguments, "--model", "digits"]).exit_code == 0
    with pytest.raises(DataError, match=r"collection of texts; the page shows collections of pict"):
        open_demo(embeddings=tmp_path / "out", device="cpu")
