"""labels.json in a repository: verified like other files, never a reason to fail offline."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import TINY_VIT, draw
from huggingface_hub import close_session, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from logged import Log
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

import hfclip
from hfclip.hub import fetch
from hfclip.hub.fetch import Access
from hfclip.layouts.labels import LABELS_FILE
from hfclip.sources import cached as cached_models

LABELS, TEMPLATES = ("a cat", "a dog"), ("a photo of {}",)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        model = draw(TINY_VIT)
        model.labels, model.templates = LABELS, TEMPLATES
        model.save_pretrained(tmp_path / "model")
        hub.add_repository("me/model", {path.name: path for path in (tmp_path / "model").iterdir()})
        yield hub
    close_session()


def cached_labels() -> Path:
    (path,) = Path(constants.HF_HUB_CACHE).glob(f"models--me--model/snapshots/*/{LABELS_FILE}")
    return path


def load(*, offline: bool) -> hfclip.CLIP:
    return hfclip.load("me/model", "cpu", local_files_only=offline)[0]


def overwrite(path: Path) -> None:
    """Changes the file that a link in the cache points to."""
    real = path.resolve()
    real.write_text(real.read_text().replace("cat", "rat"))


def test_a_repository_gives_its_labels_online_and_offline(hub: LoopbackHub) -> None:
    assert load(offline=False).labels == LABELS
    assert load(offline=True).labels == LABELS
    assert hfclip.CLIP.from_pretrained("me/model", local_files_only=True).templates == TEMPLATES


def test_changed_labels_are_fetched_again_or_refused_offline(hub: LoopbackHub) -> None:
    load(offline=False)
    overwrite(cached_labels())
    with pytest.raises(hfclip.IntegrityError, match=LABELS_FILE):
        load(offline=True)
    with pytest.raises(hfclip.IntegrityError, match=LABELS_FILE):
        hfclip.verify("me/model")
    assert load(offline=False).labels == LABELS


def test_verify_and_the_list_of_models_know_the_labels(hub: LoopbackHub) -> None:
    load(offline=False)
    assert LABELS_FILE in {path.name for path in hfclip.verify("me/model").files}
    (model,) = cached_models.scan()
    assert (LABELS_FILE in model.needed, model.state) == (True, "verified")


def test_a_model_loads_offline_without_labels_that_are_not_cached(
    hub: LoopbackHub, log: Log
) -> None:
    load(offline=False)
    cached_labels().unlink()
    log.messages.clear()
    model = load(offline=True)
    assert (model.labels, model.templates) == (None, None)
    assert LABELS_FILE in log.text
    assert "The model is loaded without its labels." in log.text
    (found,) = cached_models.scan()
    assert (found.state, found.missing) == ("partial", [LABELS_FILE])


def test_a_model_loads_offline_if_it_is_unknown_whether_it_has_labels(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tool fetched only its own files, so there is no list of the repository's files."""
    for name in ("open_clip_config.json", "config.json", "model.safetensors"):
        with suppress(EntryNotFoundError):
            hf_hub_download("me/model", name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = fetch.resolve("me/model", None, Access())
    assert (snapshot.is_listed, fetch.may_have(snapshot, LABELS_FILE)) == (False, True)
    assert load(offline=True).labels is None


def test_invalid_labels_in_a_repository_are_refused_with_its_name(hub: LoopbackHub) -> None:
    files = {path.name: path.read_bytes() for path in Path(cached_model(hub)).iterdir()}
    files[LABELS_FILE] = json.dumps({"labels": ["a", "a"], "templates": ["{}"]}).encode()
    hub.add_repository("me/broken", files)
    with pytest.raises(hfclip.ConfigError, match=r"me/broken at .*labels\.json.*more than once"):
        hfclip.load("me/broken", "cpu")


def cached_model(hub: LoopbackHub) -> Path:
    load(offline=False)
    return cached_labels().parent
