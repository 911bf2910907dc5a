"""labels.json: what is written, what is read, what is refused and what is ignored."""

import codecs
import json
from pathlib import Path

import pytest
from conftest import TINY_VIT, draw
from logged import Log

import hfclip
from hfclip.errors import ConfigError
from hfclip.layouts import labels as module
from hfclip.layouts.labels import LABELS_FILE, LabelSet, read_labels
from hfclip.layouts.write import LAYOUTS, write_layout

SET = LabelSet(("a cat", "Größe", "🦊"), ("a photo of a {}", "{}, drawn"))


def test_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / LABELS_FILE
    path.write_text(SET.to_json(), encoding="utf-8")
    assert read_labels(path) == SET
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "labels": ["a cat", "Größe", "🦊"],
        "templates": ["a photo of a {}", "{}, drawn"],
    }
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert read_labels(path) == SET


@pytest.mark.parametrize(
    ("labels", "templates", "words"),
    [
        ([], ["{}"], r"`labels` is \[\]; expected a list"),
        ("cat", ["{}"], "`labels` is 'cat'; expected a list"),
        ({"0": "cat"}, ["{}"], "`labels` is {'0': 'cat'}; expected a list"),
        (["cat", 7], ["{}"], "`labels` holds 7; expected text"),
        (["cat", " "], ["{}"], "`labels` holds ' '; expected text"),
        (["cat", "\ud800"], ["{}"], "expected text"),
        (["cat", "dog", "cat"], ["{}"], "`labels` holds 'cat' more than once"),
        (["cat"], [], r"`templates` is \[\]"),
        (["cat"], ["a photo"], r"The template 'a photo' has no \{\}"),
    ],
)
def test_invalid_labels_are_refused_with_the_file(
    labels: object, templates: object, words: str, tmp_path: Path
) -> None:
    path = tmp_path / LABELS_FILE
    path.write_text(json.dumps({"labels": labels, "templates": templates}))
    with pytest.raises(ConfigError, match=f"{LABELS_FILE}: .*{words}"):
        read_labels(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_not_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / LABELS_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match="is not JSON"):
        read_labels(tmp_path / LABELS_FILE)


@pytest.mark.parametrize("content", ['["cat", "dog"]', '{"0": "cat"}', '{"labels": ["cat"]}', "1"])
def test_a_file_of_another_program_is_ignored_with_a_warning(
    content: str, tmp_path: Path, log: Log
) -> None:
    (tmp_path / LABELS_FILE).write_text(content)
    assert read_labels(tmp_path / LABELS_FILE) is None
    assert f"{LABELS_FILE} is ignored" in log.text


def test_the_size_is_bounded_in_both_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    path = tmp_path / LABELS_FILE
    path.write_text(SET.to_json(), encoding="utf-8")
    monkeypatch.setattr(module, "MAX_BYTES", path.stat().st_size)
    assert read_labels(path) == SET
    monkeypatch.setattr(module, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(ConfigError, match="The 3 labels take"):
        SET.to_json()
    assert read_labels(path) is None
    assert "is ignored" in log.text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_that_hfclip_loads_keeps_the_labels(layout: str, tmp_path: Path) -> None:
    model = draw(TINY_VIT)
    write_layout(tmp_path, model.config, model.state_dict(), layout, SET)
    if layout == "openai":
        assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
        return
    loaded, _ = hfclip.load(tmp_path, "cpu")
    assert (loaded.labels, loaded.templates) == (SET.labels, SET.templates)


def test_a_model_without_labels_has_none_and_writes_none(tmp_path: Path, log: Log) -> None:
    model, _ = hfclip.load("digits", "cpu")
    model.save_pretrained(tmp_path / "out")
    assert (model.labels, model.templates) == (None, None)
    assert not (tmp_path / "out" / LABELS_FILE).exists()
    assert log.text == ""
