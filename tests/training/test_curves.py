"""Curves and tables of a fine-tune."""

import sys
from pathlib import Path

import pytest
from logged import Log
from PIL import Image

from hfclip.training.curves import draw, read_losses, sparkline, summary
from hfclip.training.results import Scores
from training.samples import results, share


def test_a_sparkline_goes_from_the_lowest_to_the_highest_value() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([7.0, 0.0]) == "█▁"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([]) == ""


def test_more_than_40_values_are_averaged() -> None:
    line = sparkline([1.0] * 500 + [0.0] * 500)
    assert line == "█" * 20 + "▁" * 20


def test_losses_are_read_from_the_lines_of_the_log_that_have_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_losses(path) == []
    lines = ['{"step": 1, "loss": 0.5, "lr": 1}', '{"step": 1, "accuracy": 0.5}', "7", '{"step": 2']
    path.write_text("\n".join([*lines[:2], '{"step": 2, "loss": 0.25}', *lines[2:]]))
    assert read_losses(path) == [(1, 0.5), (2, 0.25)]


def test_the_summary_shows_curves_mixtures_and_before_and_after() -> None:
    assert summary(results(), [(1, 2.0), (2, 1.0)]).splitlines() == [
        "loss less its floor    █▁  2.000 -> 1.000",
        "accuracy, validation   ▁▃▅▆█  10.0 % -> 90.0 %",
        "not to forget          █▆▅▃▁  99.0 % -> 79.0 %",
        "",
        "alpha  accuracy, validation  not to forget",
        "0                    0.00 %       100.00 %",
        "0.1                  9.00 %        98.00 %",
        "0.2                 18.00 %        96.00 %",
        "0.3                 27.00 %        94.00 %",
        "0.4                 36.00 %        92.00 %",
        "0.5                 45.00 %        90.00 %",
        "0.6                 54.00 %        88.00 %",
        "0.7                 63.00 %        86.00 %",
        "0.8                 72.00 %        84.00 %  chosen",
        "0.9                 81.00 %        82.00 %",
        "1                   90.00 %        80.00 %",
        "",
        "                                 base  fine-tuned  mixed, 0.8 fine-tuned",
        "accuracy, test                10.00 %     95.00 %                93.00 %",
        "image to text recall@1, test  10.00 %     95.00 %                93.00 %",
        "text to image recall@1, test   5.00 %     47.50 %                46.50 %",
        "accuracy, not to forget       99.00 %     80.00 %                91.00 %",
    ]


def test_without_a_mixture_and_without_data_to_keep_the_summary_is_shorter() -> None:
    alone = results(
        alpha=1.0,
        alphas={},
        epochs=[],
        before=Scores(share(0.1)),
        tuned=Scores(share(0.9)),
        mixed=Scores(share(0.9)),
    )
    assert summary(alone).splitlines()[:2] == [
        "                                 base  fine-tuned",
        "accuracy, test                10.00 %     90.00 %",
    ]


def test_the_picture_has_three_panels_and_is_the_same_each_time(tmp_path: Path) -> None:
    losses = [(step, 1 / step) for step in range(1, 2000)]
    assert draw(results(), losses, tmp_path / "one.png")
    assert draw(results(), losses, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert image.size == (1200, 360)
        colours = {colour for _, colour in image.convert("RGB").getcolors(2**20) or []}
    assert {(0x2A, 0x7F, 0x62), (0xC0, 0x50, 0x3C)} <= colours  # both curves
    assert draw(results(alphas={}, epochs=[]), [], tmp_path / "empty.png")


def test_without_matplotlib_there_is_a_note_and_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not draw(results(), [], tmp_path / "curves.png")
    assert log.messages == ["curves.png needs matplotlib: pip install 'hfclip[finetune]'."]
    assert list(tmp_path.iterdir()) == []
