"""The cards in model_cards/ are generated, valid on the Hub, and have correct numbers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard, close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

import hfclip
import hfclip.loading
from conversion import cards
from hfclip.cards.card import About, Metric, card_data, model_card, read_metrics
from hfclip.config import ClipConfig
from hfclip.errors import ConfigError
from hfclip.releases import RELEASES, repository_name

NAMES = [f"{repository_name(name)}.md" for name in RELEASES]
# Identifiers of licences and languages that the Hub accepts.
LICENSES = {"mit", "apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "openrail", "other"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        yield hub
    close_session()


def load(name: str) -> ModelCard:
    return ModelCard((cards.FOLDER / name).read_text(encoding="utf-8"))


def test_generated_cards_equal_the_stored_ones() -> None:
    for name, text in cards.all_cards().items():
        assert (cards.FOLDER / name).read_text(encoding="utf-8") == text, name
    assert {path.name for path in cards.FOLDER.iterdir()} == {*NAMES, "digits.md"}


def test_a_different_card_is_reported_and_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    assert CliRunner().invoke(cards.main).exit_code == 0
    assert CliRunner().invoke(cards.main, ["--check"]).exit_code == 0
    (tmp_path / "RN50.md").write_text("changed")
    result = CliRunner().invoke(cards.main, ["--check"])
    assert (result.exit_code, result.output) == (1, "RN50.md differs\n")
    assert (tmp_path / "RN50.md").read_text() == "changed"


@pytest.mark.parametrize("name", [*NAMES, "digits.md"])
def test_the_metadata_follow_the_rules_of_the_hub(name: str, hub: LoopbackHub) -> None:
    card = load(name)
    card.validate()
    data = card.data
    assert data.get("license") in LICENSES
    assert data.get("library_name") == "hfclip"
    assert data.get("pipeline_tag") == "zero-shot-image-classification"
    assert data.get("language") == "en"
    assert data.get("tags") == ["clip", "hfclip"]
    for result in data.get("eval_results") or []:
        assert result.task_type == "zero-shot-image-classification"
        assert 0 < result.metric_value <= 100


@pytest.mark.parametrize("name", RELEASES)
def test_the_numbers_equal_those_of_the_release_table(name: str) -> None:
    release, text = RELEASES[name], load(f"{repository_name(name)}.md").text
    assert f'hfclip.load("{name}", device=device)' in text
    assert release.original.sha256 in text
    assert f"{release.original.size:,}" in text
    assert f"hf-hub:{release.hub.repo_id}" in text
    assert f"| parameters | {release.config.parameter_count:,} |" in text
    side = release.config.image_resolution
    assert f"| image | {side} x {side} pixels |" in text
    assert (release.hub.sha256 or "not there") in text or release.hub.sha256 is None
    assert ("has no CLIP models with a ResNet" in text) == release.config.is_resnet
    known = {release.original.sha256, release.hub.sha256, release.hub.revision}
    assert set(re.findall(r"[0-9a-f]{40,}", text)) <= known


def test_a_card_calls_only_pinned_releases_pinned() -> None:
    words = {
        "yes": "is pinned to this commit and this sha256",
        "hash only": "accepts only this sha256.\nThe commit is not pinned",
        "no": "is not pinned: it loads the main branch",
    }
    for name, release in RELEASES.items():
        text = load(f"{repository_name(name)}.md").text
        assert [kind for kind in words if words[kind] in text] == [release.hub.pinned], name
    assert [name for name in RELEASES if RELEASES[name].hub.pinned == "no"] == [
        "RN101",
        "RN50x16",
        "RN50x64",
    ]
    assert RELEASES["RN50x4"].hub.pinned == "hash only"


SNIPPET = re.compile(r"```python\n(import hfclip\n.*?)```", re.DOTALL)


@pytest.mark.parametrize("path", [*cards.FOLDER.glob("*.md"), cards.FOLDER.parent / "README.md"])
def test_the_first_snippet_runs_on_the_device_of_the_model(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs each snippet with a simulated GPU and records the objects moved to it."""
    if path.name == "digits.md":
        pytest.skip("its snippet is a command")
    snippet = SNIPPET.search(path.read_text(encoding="utf-8"))
    assert snippet is not None
    moved: list[tuple[object, str]] = []
    digits, move = hfclip.loading.load("digits", "cpu"), torch.Tensor.to
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    def to(self: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if arguments != ("cuda",):
            return move(self, *arguments, **options)
        moved.append((tuple(self.shape), "cuda"))
        return self

    def load_digits(name: str, device: str) -> object:
        assert name in RELEASES
        moved.append((name, device))
        return digits

    monkeypatch.setattr(torch.Tensor, "to", to)
    picture = Path(hfclip.__file__).parent / "digits" / "seven.png"
    code = re.sub(r'"[\w]+\.jpg"', repr(str(picture)), snippet[1])
    monkeypatch.setattr(hfclip, "load", load_digits)
    exec(code, {})  # noqa: S102  # our own documents
    assert moved[0][1] == "cuda"
    assert {((1, 3, 32, 32), "cuda"), ((2, 77), "cuda")} <= set(moved)
    assert "tensor([[" in capsys.readouterr().out


def test_every_figure_has_a_source() -> None:
    for name in RELEASES:
        for result in load(f"{repository_name(name)}.md").data.get("eval_results") or []:
            assert result.source_url == "https://arxiv.org/abs/2103.00020"
    vit = load("ViT-B-32.md").data.get("eval_results")
    assert [result.metric_value for result in vit] == [63.2]


def test_a_fine_tune_names_its_base_and_its_data() -> None:
    about = About("me/my-clip", "mit", "timm/base", ("mnist",), (Metric("mnist", "accuracy", 0.9),))
    data = card_data(about).to_dict()  # type: ignore[no-untyped-call]
    assert data["base_model"] == "timm/base"
    assert data["base_model_relation"] == "finetune"
    assert data["datasets"] == ["mnist"]
    (index,) = data["model-index"]
    assert index["name"] == "my-clip"
    assert index["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.9}]


@pytest.mark.parametrize(
    ("resizing", "words", "layouts"),
    [
        ({}, "| image | 32 x 32 pixels |", "open_clip    # or transformers\n"),
        (
            {"resize_mode": "longest"},
            "| image | 32 x 32 pixels, longer side resized to 32 (bicubic), padded with level 0 |",
            "open_clip\n",
        ),
        (
            {"resize_resolution": 40},
            "| image | 32 x 32 pixels, shorter side resized to 40 (bicubic), center cropped |",
            "transformers\n",
        ),
    ],
)
def test_a_card_tells_the_resizing_and_the_layouts_that_can_describe_it(
    resizing: dict[str, Any], words: str, layouts: str, tmp_path: Path
) -> None:
    config = ClipConfig(64, 32, 2, 64, 16, 16, 600, 64, 1, 2, **resizing)
    text = str(model_card(tmp_path, config))
    assert words in text
    assert f"hfclip export . copy --layout {layouts}" in text


def test_a_card_shows_how_to_load_each_layout(tmp_path: Path) -> None:
    config, about = ClipConfig(8, 16, 1, 64, 16, 8, 600, 64, 1, 1), About("me/my-clip")
    text = {
        layout: model_card(tmp_path, config, about, layout).text
        for layout in ("hfclip", "open_clip", "transformers")
    }
    assert 'create_model_from_pretrained("hf-hub:me/my-clip")' in text["open_clip"]
    assert 'CLIPModel.from_pretrained("me/my-clip")' in text["transformers"]
    assert "hfclip export me/my-clip copy --layout" in text["hfclip"]
    assert all('hfclip.load("me/my-clip", device=device)' in each for each in text.values())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"accuracy": "high"}', "expected a finite number"),
        ('{"accuracy": NaN}', "expected a finite number"),
        ('{"accuracy": true}', "expected a finite number"),
        ("[1]", "not a JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_a_metric_is_a_number(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ConfigError, match=words):
        read_metrics(tmp_path / "results.json", ["mnist"])


def test_metrics_need_the_name_of_their_data_set(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"accuracy": 0.9}')
    with pytest.raises(ConfigError, match="--dataset"):
        read_metrics(path, [])
    path.write_text('{"mnist": {"accuracy": 0.9}, "svhn": {"accuracy": 1}}')
    assert read_metrics(path, []) == [("mnist", "accuracy", 0.9), ("svhn", "accuracy", 1.0)]
