"""The folder of a finished fine-tune: its files, its card, and what must not be in it."""

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_VIT, draw
from huggingface_hub import ModelCard
from logged import Log

import hfclip
from conversion.digits import WORDS
from hfclip.cards.renewal import is_generated
from hfclip.errors import ConfigError, PublishError
from hfclip.training.outcome import Outcome, describe_device, versions, write_outcome
from hfclip.training.results import BaseModel, DataCounts, Results, Scores
from training.samples import TEMPLATE, results, share

LOG = '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n'


def outcome(**changes: Any) -> Outcome:
    model = draw(TINY_VIT)
    return Outcome(model.config, model.state_dict(), results(**changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns the folder of a training with its log, its checkpoints and a list of pictures."""
    folder = tmp_path / "home-of-alice" / "out"
    (folder / "checkpoints" / "step-000000002").mkdir(parents=True)
    (folder / "log.jsonl").write_text(LOG)
    (folder / "skipped.csv").write_text(f"{tmp_path}/a.png,damaged\n")
    return folder


def test_the_folder_has_the_model_the_report_and_the_labels(folder: Path) -> None:
    given = outcome()
    write_outcome(folder, given)
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "checkpoints",
        "config.json",
        "curves.png",
        "finetune.json",
        "labels.json",
        "log.jsonl",
        "model.safetensors",
        "preprocessor_config.json",
        "skipped.csv",
    }
    model, _ = hfclip.load(folder, "cpu")
    assert (model.labels, model.templates) == (WORDS, (TEMPLATE,))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, given.tensors[name]), name
    assert (folder / "log.jsonl").read_text() == LOG


def test_finetune_json_holds_all_results_and_names_the_weights(folder: Path) -> None:
    given = outcome()
    write_outcome(folder, given)
    values = json.loads((folder / "finetune.json").read_text())
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert values["weights"] == {"file": "model.safetensors", "sha256": digest}
    assert values["form"] == 1
    assert Results.from_dict(values) == given.results
    assert values["alphas"]["0.8"]["keep"]["accuracy"] == 0.84
    assert values["before"]["own"]["accuracy"] == 0.1


def test_no_file_for_publishing_holds_a_path_of_this_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    base = BaseModel.of(str(folder))
    write_outcome(folder, outcome(base=base))
    assert base == BaseModel("a local model")
    for path in folder.iterdir():
        if path.is_file() and path.name != "skipped.csv":
            content = path.read_bytes()
            for private in ("home-of-alice", str(folder.parents[1]), "checkpoints", "skipped.csv"):
                assert private.encode() not in content, path.name


def test_the_card_says_what_was_trained_and_what_was_forgotten(folder: Path) -> None:
    write_outcome(folder, outcome())
    text = (folder / "README.md").read_text()
    assert is_generated(text)
    link = "[org/base](https://huggingface.co/org/base)"
    assert f"A fine-tune of {link}, on 1,438 pictures of 10 classes: a CLIP model" in text
    for line in (
        "|  | base | fine-tuned | mixed, 0.8 fine-tuned |",
        "| accuracy, test split (100 pictures) | 10.00 % | 95.00 % | 93.00 % |",
        "| accuracy, not to forget (100 pictures) | 99.00 % | 80.00 % | 91.00 % |",
        f"| base | org/base at commit `{'0123456789' * 4}` |",
        "| weights | 0.8 of the trained weights and 0.2 of the base's |",
        "| pictures | 1,438 for training, 100 for validation, 259 for test |",
        f"| labels | {', '.join(WORDS)} |",
        "| template | `a handwritten {}` |",
        "| time | 0:01:01 |",
        "| hardware | Abacus 9000, 2 threads, 2 processes |",
        "| lr | `0.0003` |",
        "hfclip classify picture.jpg --model .",
    ):
        assert line in text.splitlines(), line
    assert "What the model has forgotten was measured only on" in text
    data: Any = ModelCard(text).data
    assert (data.base_model, data.license, data.datasets) == ("org/base", None, None)
    metrics = {
        (each.dataset_name, each.metric_type): each.metric_value for each in data.eval_results
    }
    assert metrics["own data test split", "accuracy"] == 0.93


def test_the_card_admits_what_was_not_measured(folder: Path) -> None:
    alone = {name: Scores(share(value)) for name, value in
             (("before", 0.1), ("tuned", 0.9), ("mixed", 0.9))}  # fmt: skip
    data = DataCounts(50, 10, 0, 40, 0, repository="org/pictures")
    write_outcome(folder, outcome(split="validation", labels=None, data=data, alpha=1.0, **alone))
    text = (folder / "README.md").read_text()
    assert "What the model has forgotten was not measured" in text
    assert "There was no test split" in text
    assert "|  | base | fine-tuned |" in text.splitlines()
    assert "| weights | the trained weights |" in text.splitlines()
    assert "on 50 pictures with captions" in text
    assert "hfclip classify" not in text
    assert not (folder / "labels.json").exists()
    data_of_card: Any = ModelCard(text).data
    assert data_of_card.datasets == ["org/pictures"]


def test_labels_cannot_change_the_form_of_the_card(folder: Path) -> None:
    labels = ("a|b", "two\nlines", "<!-- hfclip:files -->", "--> x")
    write_outcome(folder, outcome(labels=labels))
    text = (folder / "README.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| labels |")]
    assert row == r"| labels | a\|b, two lines, &lt;!-- hfclip:files -->, --> x |"
    assert text.count("<!-- hfclip:files -->") == 1
    assert is_generated(text)
    assert hfclip.load(folder, "cpu")[0].labels == labels


def test_a_second_fine_tune_replaces_the_files_of_the_first(folder: Path) -> None:
    write_outcome(folder, outcome())
    write_outcome(folder, outcome(labels=None))
    assert not (folder / "labels.json").exists()
    assert hfclip.load(folder, "cpu")[0].labels is None
    assert "pictures with captions" in (folder / "README.md").read_text()


def test_a_card_that_a_person_wrote_stays(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\nMy clip.\n")
    write_outcome(folder, outcome())
    assert (folder / "README.md").read_text() == "---\nlicense: mit\n---\n\nMy clip.\n"


def test_broken_weights_and_invalid_labels_write_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    broken = outcome()
    broken.tensors["text_projection"][0, 0] = torch.nan
    with pytest.raises(PublishError, match="text_projection hold NaN"):
        write_outcome(folder, broken)
    with pytest.raises(ConfigError, match="more than once"):
        write_outcome(folder, outcome(labels=("one", "one")))
    assert sorted(folder.rglob("*")) == before


def test_without_matplotlib_the_rest_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    write_outcome(folder, outcome())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    write_outcome(folder, outcome())
    assert "curves.png needs matplotlib" in log.text
    assert not (folder / "curves.png").exists()  # it would show another training
    assert (folder / "finetune.json").is_file()


def test_the_machine_is_described_without_its_name() -> None:
    assert {"hfclip", "Python", "torch"} <= versions().keys()
    words = describe_device(torch.device("cpu"))
    assert words.endswith(f", {torch.get_num_threads()} threads")
    assert platform.node() not in words


def test_a_bundled_base_and_a_release_are_named() -> None:
    assert BaseModel.of("digits") == BaseModel("digits")
    assert BaseModel.of("ViT-B/32").name == "ViT-B/32"
    assert BaseModel.of("hf-hub:org/name@v1") == BaseModel("org/name", "org/name")
