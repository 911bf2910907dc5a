"""The HTML of results shows text as text."""

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from hfclip.app.answers import Comparison
from hfclip.app.finding import Found
from hfclip.app.markup import answer_times, chosen, download, facts, heat_map, note, problems
from hfclip.app.times import Row, Times, Watch, in_words
from hfclip.errors import ImageError

HOSTILE = '<img src=x onerror=alert(1)>"&'
SHOWN = "&lt;img src=x onerror=alert(1)&gt;&quot;&amp;"


def test_no_text_becomes_html(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    comparison = Comparison(
        (HOSTILE,), (str(tmp_path / "a.png"),), (HOSTILE,), np.zeros((1, 1), np.float32), ()
    )
    for written in (
        note(HOSTILE),
        problems([ImageError(HOSTILE)]),
        download(HOSTILE, "a"),
        heat_map(comparison),
        facts({HOSTILE: HOSTILE}),
        answer_times([Row(HOSTILE, 1, 0.1, 0.1)]),
        chosen(Found(HOSTILE, 0, 0.5), HOSTILE, (1, 1)),
    ):
        assert SHOWN in written
        assert "<img src=x" not in written


def test_a_link_names_the_key_and_not_the_path() -> None:
    written = chosen(Found('a b/"ü&.png', 0, 0.5), None, (640, 480))
    assert 'href="pictures?key=a%20b%2F%22%C3%BC%26.png"' in written
    assert "cosine 0.5000 · 640 x 480 pixels" in written


def test_a_heat_map_colours_the_lowest_and_the_highest_cosine(tmp_path: Path) -> None:
    paths = (str(tmp_path / "a.png"), str(tmp_path / "gone.png"))
    Image.new("L", (200, 100)).save(paths[0])
    cosines = np.array([[0.1, 0.3], [0.2, -0.1]], np.float32)
    written = heat_map(Comparison(("a.png", "gone.png"), paths, ("cat", "dog"), cosines, ()))
    cells = re.findall(r'<td style="background:rgb\((.*?)\);color:(.*?)">(.*?)</td>', written)
    assert cells[1] == ("29,78,216", "#fff", "0.300")
    assert cells[3] == ("239,246,255", "#000", "-0.100")
    assert cells[0] == ("134,162,236", "#000", "0.100")
    assert re.findall(r'<th scope="col">(.*?)</th>', written) == ["cat", "dog"]
    [data] = re.findall(r"data:image/webp;base64,(.*?)\"", written)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 48)


def test_equal_cosines_have_one_colour() -> None:
    written = heat_map(Comparison(("a",), ("gone",), ("x", "y"), np.ones((1, 2), np.float32), ()))
    assert written.count("rgb(134,162,236)") == 2


def test_a_download_holds_its_file() -> None:
    [data] = re.findall(r"base64,(.*?)\"", download("labels.csv", "a,ü\r\n"))
    assert base64.b64decode(data).decode() == "a,ü\r\n"


def test_times_are_in_words_and_keep_kinds_apart() -> None:
    watch = Watch()
    watch.steps = {"reading": 0.012, "encoding": 1.5}
    assert watch.sentence == "1.5 s: reading 12 ms, encoding 1.5 s"
    assert (in_words(0.0004), in_words(0.9994), in_words(0.9996)) == ("0 ms", "999 ms", "1.0 s")
    times = Times()
    for kind, seconds in (("search", 1.0), ("classify", 0.5), ("search", 3.0), ("search", 1.5)):
        one = Watch()
        one.steps = {"all": seconds}
        times.add(kind, one)
    assert times.rows() == [Row("classify", 1, 0.5, 0.5), Row("search", 3, 1.5, 3.0)]
    assert answer_times([]) == '<p class="note">No answer yet.</p>'


def test_a_watch_adds_the_times_of_a_step() -> None:
    watch = Watch()
    for _ in range(2):
        with watch.step("reading"):
            pass
    assert list(watch.steps) == ["reading"]
    assert 0 < watch.steps["reading"] < 1
