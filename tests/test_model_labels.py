"""The labels of a model are saved, pushed and loaded with it, and never those of another model."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY_VIT, draw
from huggingface_hub import close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

import hfclip
from hfclip.errors import ConfigError
from hfclip.layouts.labels import LABELS_FILE

TOKEN = "hf_secretOfTheTests"
LABELS, TEMPLATES = ("a cat", "a dog"), ("a photo of {}",)

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # a warning of the client


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.add_account("me", TOKEN)
        yield hub
    close_session()


def labelled() -> hfclip.CLIP:
    model = draw(TINY_VIT)
    model.labels, model.templates = LABELS, TEMPLATES
    return model


def files(hub: LoopbackHub) -> set[str]:
    commit = hub.repository("me/clip").find("main")
    assert commit is not None
    return set(commit.files)


def test_a_folder_gives_the_labels_back_by_both_loaders(tmp_path: Path) -> None:
    labelled().save_pretrained(tmp_path / "out")
    for model in (
        hfclip.load(tmp_path / "out", "cpu")[0],
        hfclip.CLIP.from_pretrained(tmp_path / "out"),
    ):
        assert (model.labels, model.templates) == (LABELS, TEMPLATES)


def test_saving_a_model_without_labels_removes_those_of_another(tmp_path: Path) -> None:
    labelled().save_pretrained(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    draw(TINY_VIT).save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / LABELS_FILE).exists()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert hfclip.load(tmp_path / "out", "cpu")[0].labels is None


def test_an_export_keeps_the_labels_and_a_forced_one_removes_those_of_another(
    tmp_path: Path,
) -> None:
    labelled().save_pretrained(tmp_path / "one")
    draw(TINY_VIT).save_pretrained(tmp_path / "two")
    hfclip.export(tmp_path / "one", tmp_path / "out", "open_clip")
    assert hfclip.load(tmp_path / "out", "cpu")[0].labels == LABELS
    hfclip.export(tmp_path / "two", tmp_path / "out", "open_clip", force=True)
    assert hfclip.load(tmp_path / "out", "cpu")[0].labels is None


def test_invalid_labels_stop_the_save_and_leave_the_folder(tmp_path: Path) -> None:
    model = draw(TINY_VIT)
    model.labels = ("a cat", "a cat")
    model.templates = TEMPLATES
    with pytest.raises(ConfigError, match="more than once"):
        model.save_pretrained(tmp_path / "out")
    model.labels, model.templates = LABELS, None
    with pytest.raises(ConfigError, match="`templates`"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_push_sends_the_labels_and_a_later_push_without_labels_deletes_them(
    hub: LoopbackHub,
) -> None:
    labelled().push_to_hub("me/clip")
    model, _ = hfclip.load("me/clip", "cpu")
    assert (model.labels, model.templates) == (LABELS, TEMPLATES)
    draw(TINY_VIT).push_to_hub("me/clip", ignore_patterns=[LABELS_FILE])
    assert LABELS_FILE in files(hub)
    draw(TINY_VIT).push_to_hub("me/clip")
    assert LABELS_FILE not in files(hub)
    assert hfclip.load("me/clip", "cpu")[0].labels is None


def test_a_push_keeps_the_labels_file_of_another_program(hub: LoopbackHub) -> None:
    content = json.dumps({"0": "cat"}).encode()
    hub.add_repository("me/clip", {LABELS_FILE: content})
    draw(TINY_VIT).push_to_hub("me/clip")
    assert LABELS_FILE in files(hub)
    assert hfclip.load("me/clip", "cpu")[0].labels is None
