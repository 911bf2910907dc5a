"""A second save renews a generated README.md and keeps a handwritten one."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_VIT, draw
from exported import ABOUT, VIT, Export
from huggingface_hub import ModelCard
from logged import Log

import hfclip
from hfclip.cards import marks as card_marks
from hfclip.cards.card import public_origin
from hfclip.cards.licenses import LICENSES, check_license
from hfclip.config import ClipConfig
from hfclip.layouts.files import Source
from hfclip.publishing.export import export


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def card(folder: Path) -> str:
    return (folder / "README.md").read_bytes().decode()


def head_of(text: str) -> Any:
    """Returns the metadata of a card. Its fields depend on the kind of card."""
    return ModelCard(text).data


def train(model: hfclip.CLIP) -> None:
    with torch.no_grad():
        model.text_projection[0, 0] += 1


def test_a_second_save_updates_the_hash_in_a_generated_card(tmp_path: Path) -> None:
    model = draw(TINY_VIT)
    model.save_pretrained(tmp_path)
    first = digest(tmp_path / "model.safetensors")
    assert first in card(tmp_path)
    train(model)
    model.save_pretrained(tmp_path)
    second = digest(tmp_path / "model.safetensors")
    assert second != first
    assert f"| `model.safetensors` | {(tmp_path / 'model.safetensors').stat().st_size:,} |" in card(
        tmp_path
    )
    assert second in card(tmp_path)
    assert first not in card(tmp_path)


def test_a_second_save_keeps_card_fields_but_drops_metrics_of_other_weights(
    tmp_path: Path, log: Log
) -> None:
    model = draw(TINY_VIT)
    model.save_pretrained(tmp_path, repo_id="me/my-clip", model_card_kwargs=ABOUT)
    model.save_pretrained(tmp_path)
    same = head_of(card(tmp_path))
    assert [result.metric_value for result in same.eval_results] == [0.875]
    assert log.text == ""
    train(model)
    model.save_pretrained(tmp_path)
    text = card(tmp_path)
    data = head_of(text)
    assert [data.license, data.base_model, data.datasets] == ["mit", "timm/base", ["mnist"]]
    assert 'hfclip.load("me/my-clip", device=device)' in text
    assert "Mine --> and nobody's." in text
    assert data.get("eval_results") is None
    assert "0.875" not in text
    assert "the new card omits them" in log.text
    new = {"metrics": [("mnist", "accuracy", 0.5)], "license": "apache-2.0"}
    model.save_pretrained(tmp_path, model_card_kwargs=new)
    data = head_of(card(tmp_path))
    assert data.license == "apache-2.0"
    assert [result.metric_value for result in data.eval_results] == [0.5]


EDITS: dict[str, Callable[[str], str]] = {
    "a sentence added": lambda text: text.replace(
        "# A CLIP\n", "# A CLIP\n\nMy own words: café.\n"
    ),
    "the licence changed": lambda text: text.replace("license: mit", "license: apache-2.0"),
    "the end cut off": lambda text: text[: text.index("<!-- hfclip:generated")],
    "text after the end": lambda text: text + "\nMore.\n",
    "lines end as on Windows, and a word changed": lambda text: text.replace(
        "ranks", "sorts"
    ).replace("\n", "\r\n"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_only_the_table_of_files_is_renewed_in_an_edited_card(edit: str, tmp_path: Path) -> None:
    model = draw(TINY_VIT)
    model.save_pretrained(tmp_path, model_card_kwargs={"license": "mit"})
    first = digest(tmp_path / "model.safetensors")
    before = EDITS[edit](card(tmp_path))
    assert before != card(tmp_path)
    (tmp_path / "README.md").write_bytes(before.encode())
    train(model)
    model.save_pretrained(tmp_path)
    after = card(tmp_path)
    second = digest(tmp_path / "model.safetensors")
    assert second in after

    def without_table(text: str) -> tuple[str, str]:
        opening, closing = "<!-- hfclip:files -->", "<!-- /hfclip:files -->"
        return text[: text.index(opening)], text[text.index(closing) :]

    assert without_table(after) == without_table(before)
    assert first not in after


def test_a_card_with_other_line_endings_counts_as_generated(tmp_path: Path) -> None:
    model = draw(TINY_VIT)
    model.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_bytes(card(tmp_path).replace("\n", "\r\n").encode())
    model.save_pretrained(tmp_path)
    assert "\r" not in card(tmp_path)


OWN = {
    "without a head": b"# Mine\n\nwords \xff\xfe that are no UTF-8\r\n",
    "with a head": b"---\nlicense: mit  # said so\ntags: [a]\n---\n# Mine\n",
    "empty": b"",
}


@pytest.mark.parametrize("kind", OWN)
def test_a_handwritten_card_stays_unchanged(kind: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(OWN[kind])
    draw(TINY_VIT).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == OWN[kind]
    draw(TINY_VIT).save_pretrained(tmp_path, model_card_kwargs={"license": "mit"})
    body = OWN[kind].split(b"---\n")[-1]
    assert (tmp_path / "README.md").read_bytes().endswith(body)
    text = (tmp_path / "README.md").read_bytes().decode(errors="replace")
    assert head_of(text).license == "mit"


def test_a_given_value_changes_only_its_field_in_the_card_metadata(tmp_path: Path) -> None:
    own = "---\ntags:\n- mine\nlicense: mit\nwidget: []\n---\n\n# Mine\n\n---\nlicense: text\n---\n"
    (tmp_path / "README.md").write_text(own)
    draw(TINY_VIT).save_pretrained(tmp_path, model_card_kwargs=ABOUT)
    text = card(tmp_path)
    head = card_marks.head(text)
    assert list(head)[:3] == ["tags", "license", "widget"]
    assert head["tags"] == ["mine"]
    assert head["base_model"] == "timm/base"
    assert head["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.875}]
    assert text.endswith("---\n\n# Mine\n\n---\nlicense: text\n---\n")


def test_invalid_yaml_in_a_card_is_reported_when_the_metadata_must_change(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\na: [\n---\n# Mine\n")
    draw(TINY_VIT).save_pretrained(tmp_path)
    with pytest.raises(hfclip.ConfigError, match=r"head of README\.md is not YAML"):
        draw(TINY_VIT).save_pretrained(tmp_path, model_card_kwargs={"license": "mit"})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"license": "appache-2.0"}, "Did you mean 'apache-2.0'"),
        ({"license": "Apache 2.0"}, "Did you mean 'apache-2.0'"),
        ({"license": "MIT"}, "Did you mean 'mit'"),
        ({"licence": "mit"}, "has no field 'licence'; the fields are repo_id, license"),
    ],
)
def test_an_invalid_card_value_is_refused_before_a_file_is_written(
    given: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(hfclip.ArgumentError, match=words):
        draw(TINY_VIT).save_pretrained(tmp_path / "new", model_card_kwargs=given)
    assert list(tmp_path.iterdir()) == []


def test_every_listed_licence_is_accepted() -> None:
    assert len(LICENSES) > 70
    assert {"mit", "apache-2.0", "cc-by-nc-4.0", "apple-amlr", "other"} <= LICENSES
    for name in LICENSES:
        check_license(name)


@pytest.fixture
def exported(
    layout: str, tmp_path: Path, onnx_export: Callable[[ClipConfig, torch.dtype], Export]
) -> Path:
    """Returns the export of a folder named `model` whose card has the fields of ABOUT."""
    if layout == "onnx":
        return onnx_export(VIT, torch.float32).folder
    draw(TINY_VIT).save_pretrained(tmp_path / "model", model_card_kwargs=ABOUT)
    return export(tmp_path / "model", tmp_path / "out", layout)


@pytest.mark.parametrize("layout", ["open_clip", "transformers", "onnx", "openai"])
def test_an_export_keeps_the_fields_of_the_card_in_its_folder(exported: Path) -> None:
    text = card(exported)
    data = head_of(text)
    assert [data.license, data.base_model, data.datasets] == ["mit", "timm/base", ["mnist"]]
    assert [result.metric_value for result in data.eval_results] == [0.875]
    (weights,) = [path for path in exported.iterdir() if path.suffix in {".safetensors", ".pt"}]
    assert digest(weights) in text
    assert str(exported.parent) not in text
    assert "| exported from | the folder `model` |" in text


def test_an_export_copies_a_handwritten_card_and_keeps_an_existing_one(tmp_path: Path) -> None:
    draw(TINY_VIT).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    export(tmp_path / "model", tmp_path / "out", "open_clip")
    assert card(tmp_path / "out") == "---\nlicense: mit\n---\n# Mine\n"
    (tmp_path / "out" / "README.md").write_text("# Another\n")
    export(tmp_path / "model", tmp_path / "out", "open_clip", force=True)
    assert card(tmp_path / "out") == "# Another\n"


def test_a_second_export_renews_its_own_card(tmp_path: Path) -> None:
    model = draw(TINY_VIT)
    model.save_pretrained(tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", "open_clip")
    train(model)
    model.save_pretrained(tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", "open_clip", force=True)
    assert digest(tmp_path / "out" / "open_clip_model.safetensors") in card(tmp_path / "out")


def test_a_project_readme_is_not_the_card_of_a_single_weight_file(tmp_path: Path) -> None:
    torch.save(draw(TINY_VIT).state_dict(), tmp_path / "last.pt")
    (tmp_path / "README.md").write_text("# How to train\n")
    export(tmp_path / "last.pt", tmp_path / "out", "hfclip")
    text = card(tmp_path / "out")
    assert "How to train" not in text
    assert "| exported from | the file `last.pt` |" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("layout", ["hfclip", "open_clip", "transformers", "openai"])
def test_the_code_on_a_card_without_a_repository_runs_in_its_folder(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = draw(TINY_VIT)
    torch.save(model.state_dict(), tmp_path / "last.pt")
    export(tmp_path / "last.pt", tmp_path / "out", layout)
    text = card(tmp_path / "out")
    assert "path/to" not in text
    assert "Run the code in the folder that holds this file." in text
    line = next(line for line in text.splitlines() if "hfclip.load(" in line)
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, object] = {"hfclip": hfclip, "device": "cpu"}
    exec(line, names)  # noqa: S102  # our own line
    loaded = names["model"]
    assert isinstance(loaded, hfclip.CLIP)
    assert torch.equal(loaded.visual.conv1.weight, model.visual.conv1.weight)


@pytest.mark.parametrize(
    ("weights", "origin", "expected"),
    [
        ("/a/b/B.pt", "OpenAI's own file /a/b/B.pt", "OpenAI's own file `B.pt`"),
        ("/a/b/model.safetensors", "the folder /a/b", "the folder `b`"),
        ("b/model.safetensors", "the folder b", "the folder `b`"),
        ("../last.pt", "the file ../last.pt", "the file `last.pt`"),
        ("/cache/x/model.safetensors", "me/clip at 0123", "me/clip at 0123"),
    ],
)
def test_an_origin_on_a_card_holds_no_path(weights: str, origin: str, expected: str) -> None:
    assert public_origin(Source(Path(weights), None, origin)) == expected


def test_another_base_makes_the_card_that_of_a_fine_tune(tmp_path: Path) -> None:
    model = draw(TINY_VIT)
    copy = {"base_model": "org/name", "relation": "copy"}
    model.save_pretrained(tmp_path, model_card_kwargs=copy)
    assert "A copy of [org/name]" in card(tmp_path)
    assert head_of(card(tmp_path)).get("base_model_relation") is None
    model.save_pretrained(tmp_path, model_card_kwargs={"base_model": "org/other"})
    assert "A fine-tune of [org/other]" in card(tmp_path)
    assert head_of(card(tmp_path)).get("base_model_relation") == "finetune"


def test_a_card_marker_of_a_later_version_is_read(tmp_path: Path) -> None:
    model = draw(TINY_VIT)
    model.save_pretrained(tmp_path, model_card_kwargs={"license": "mit"})
    is_whole, about = card_marks.unseal(card(tmp_path))
    assert is_whole
    assert about is not None
    text = card_marks.seal(card_marks.unsealed(card(tmp_path)), {**about, "language": "en"})
    (tmp_path / "README.md").write_text(text)
    model.save_pretrained(tmp_path)
    assert head_of(card(tmp_path)).license == "mit"
