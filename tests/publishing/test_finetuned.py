"""The folder of `hfclip finetune` on the Hub: what is sent, and the same accuracy everywhere."""

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from huggingface_hub import ModelCard, close_session
from logged import Log
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from torch import Tensor
from training.samples import TEMPLATE, digits, results

import hfclip
from conversion.digits import WORDS
from hfclip.cli import main
from hfclip.hub.push import Repository
from hfclip.training.evaluation import evaluate
from hfclip.training.mix import mixed
from hfclip.training.outcome import Outcome, write_outcome
from hfclip.training.results import BaseModel, Scores

TOKEN = "hf_secretOfTheTests"
TESTS = Path(__file__).parents[1]
SEVEN = Path(hfclip.__file__).parent / "digits" / "seven.png"

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # a warning of the client

# Another user, who has only the name.
WITH_HFCLIP = """
import sys, hfclip
from training.samples import digits
from hfclip.training.evaluation import evaluate
for name in sys.argv[1:]:
    model, preprocess = hfclip.load(name, "cpu")
    (template,) = model.templates
    print(repr(evaluate(model, preprocess, digits(), model.labels, template).accuracy))
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.add_account("me", TOKEN)
        yield hub
    close_session()


def tuned() -> dict[str, Tensor]:
    """Returns weights near those of the bundled model that float16 does not hold exactly."""
    base = hfclip.load("digits", "cpu")[0].state_dict()
    random = torch.Generator().manual_seed(0)
    noisy = {
        name: tensor + 0.5 * tensor.std(correction=0) * torch.randn(tensor.shape, generator=random)
        for name, tensor in base.items()
        if name != "logit_scale"
    }
    return mixed(base, {**base, **noisy}, 0.9)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Returns the folder of a fine-tune, and the accuracy that its report states."""
    folder = tmp_path_factory.mktemp("training") / "out"
    model, preprocess = hfclip.load("digits", "cpu")
    model.load_state_dict(tuned())
    own = evaluate(model, preprocess, digits(), WORDS, TEMPLATE)
    assert own.accuracy is not None
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "model.safetensors").write_bytes(b"a checkpoint")
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    (folder / "skipped.csv").write_text("/home/me/a.png,damaged\n")
    facts = results(base=BaseModel("digits"), mixed=Scores(own))
    write_outcome(folder, Outcome(model.config, model.state_dict(), facts))
    return folder, own.accuracy


@pytest.fixture
def folder(finished: tuple[Path, float], tmp_path: Path) -> Path:
    """Returns a copy that a test may change."""
    return Path(shutil.copytree(finished[0], tmp_path / "copy-of-out"))


def publish(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["publish", *map(str, arguments)])


def files(hub: LoopbackHub) -> dict[str, bytes]:
    commit = hub.repository("me/my-clip").find("main")
    assert commit is not None
    return {name: blob.content.read() for name, blob in commit.files.items()}


def test_the_folder_is_sent_as_it_is_without_checkpoints(hub: LoopbackHub, folder: Path) -> None:
    result = publish(folder, "me/my-clip")
    assert result.exit_code == 0, result.output
    sent = files(hub)
    for name in ("finetune.json", "labels.json", "log.jsonl", "curves.png", "model.safetensors"):
        assert sent[name] == (folder / name).read_bytes(), name
    assert not {"skipped.csv", "checkpoints/model.safetensors"} & sent.keys()
    assert b"/home/me" not in b"".join(sent.values())
    again = publish(folder, "me/my-clip").stdout.splitlines()[-1]
    assert again.startswith("nothing changed")


def test_the_card_survives_with_the_name_of_the_repository(hub: LoopbackHub, folder: Path) -> None:
    before = (folder / "README.md").read_text()
    assert publish(folder, "me/my-clip", "--license", "mit").exit_code == 0
    text = files(hub)["README.md"].decode()
    for title in ("## Before and after", "## Fine-tuning", "## Settings"):
        start, end = (each.index(title) for each in (before, text))
        rows = [each[place:].split("\n\n")[1] for each, place in ((before, start), (text, end))]
        assert rows[0] == rows[1], title
    assert text.startswith("---")
    assert "# my-clip\n" in text
    assert 'hfclip.load("me/my-clip", device=device)' in text
    assert "hfclip classify picture.jpg --model me/my-clip" in text
    assert "What the model has forgotten" in text
    licences: list[Any] = [ModelCard(each).data for each in (before, text)]
    assert [data.license for data in licences] == [None, "mit"]


@pytest.mark.parametrize("change", ["weights", "report"])
def test_a_report_of_other_weights_is_not_sent(
    hub: LoopbackHub, folder: Path, change: str, log: Log
) -> None:
    if change == "weights":
        model, _ = hfclip.load(folder, "cpu")
        with torch.no_grad():
            model.logit_scale.add_(0.1)
        model.save_pretrained(folder)
    else:
        (folder / "finetune.json").write_text(json.dumps({"weights": "mine"}))
    assert publish(folder, "me/my-clip").exit_code == 0
    assert "finetune.json describes other weights" in log.text
    assert not {"finetune.json", "log.jsonl", "curves.png"} & files(hub).keys()
    assert "labels.json" in files(hub)
    if change == "weights":
        assert "## Before and after" not in files(hub)["README.md"].decode()


def test_publishing_a_model_without_labels_removes_those_of_the_earlier_one(
    hub: LoopbackHub, folder: Path
) -> None:
    assert publish(folder, "me/my-clip").exit_code == 0
    model, _ = hfclip.load("digits", "cpu")
    model.save_pretrained(folder.parent / "plain")
    plan = json.loads(publish(folder.parent / "plain", "me/my-clip", "--dry-run", "--json").stdout)
    assert plan["removed"] == ["labels.json"]
    assert "labels.json" in files(hub)
    assert publish(folder.parent / "plain", "me/my-clip").exit_code == 0
    assert "labels.json" not in files(hub)
    assert hfclip.load("me/my-clip", "cpu")[0].labels is None


def test_nothing_is_stale_in_a_repository_that_does_not_exist_yet(tmp_path: Path) -> None:
    from hfclip.hub.push import stale_labels

    assert stale_labels(Repository("me/new", None, {}), tmp_path) == []


def test_the_accuracy_is_the_same_everywhere_to_the_last_digit(
    hub: LoopbackHub, finished: tuple[Path, float], tmp_path: Path, python: Path
) -> None:
    folder, accuracy = finished
    assert 0.5 < accuracy < 1
    assert publish(folder, "me/my-clip").exit_code == 0
    report = json.loads(files(hub)["finetune.json"])
    assert report["mixed"]["own"]["accuracy"] == accuracy
    model, preprocess = hfclip.load("me/my-clip", "cpu")
    environment = hub.environment(tmp_path / "colleague") | {
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent))),
        "OMP_NUM_THREADS": "1",
    }

    def run(*command: str) -> str:
        return subprocess.run(
            [python, *command],
            env=environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    layouts = ("transformers", "open_clip")
    for layout in layouts:
        hfclip.export("me/my-clip", tmp_path / layout, layout)
    answers = run("-c", WITH_HFCLIP, "me/my-clip", *layouts)
    assert [float(each) for each in answers.split()] == [accuracy] * 3
    assert accuracies_with_peers(tmp_path, preprocess) == [accuracy] * 2
    answer = run("-m", "hfclip.cli", "classify", "--model", "me/my-clip", str(SEVEN), "--top", "1")
    assert answer.split()[-2] == "seven"
    assert model.labels == WORDS


@torch.no_grad()
def accuracies_with_peers(exports: Path, preprocess: Any) -> list[float]:
    """Returns the accuracies with transformers and open_clip.

    Both read an export in this process, which may have imported them.
    """
    from hfclip.images.reading import load_batch

    examples = digits()
    pictures, _ = load_batch([each.image.read() for each in examples], preprocess)
    captions = hfclip.tokenize([TEMPLATE.replace("{}", word) for word in WORDS]).long()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import open_clip
        from transformers import CLIPModel

        theirs: Any = CLIPModel.from_pretrained(exports / "transformers")
        model, _ = open_clip.create_model_from_pretrained(f"local-dir:{exports / 'open_clip'}")
        scores = theirs(pixel_values=pictures, input_ids=captions).logits_per_image
        images = model.eval().encode_image(pictures, normalize=True)
        texts = model.encode_text(captions, normalize=True)
    right = torch.tensor([WORDS.index(str(each.label)) for each in examples])
    return [
        float((each.argmax(dim=-1) == right).double().mean())
        for each in (scores, images @ texts.t())
    ]


def test_weights_in_float16_change_the_accuracy_by_less_than_a_point(
    finished: tuple[Path, float],
) -> None:
    folder, accuracy = finished
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, preprocess = hfclip.load(folder, "cpu", dtype=torch.float16)
    weight: Tensor = model.visual.conv1.weight
    assert weight.dtype == torch.float16
    assert not torch.equal(weight.float(), tuned()["visual.conv1.weight"])
    half = evaluate(model, preprocess, digits(), WORDS, TEMPLATE)
    assert half.accuracy == pytest.approx(accuracy, abs=0.01)
    model.save_pretrained(folder.parent / "half")
    again, _ = hfclip.load(folder.parent / "half", "cpu")
    assert again.labels == WORDS
    full = evaluate(again, preprocess, digits(), WORDS, TEMPLATE)
    assert full.accuracy == pytest.approx(accuracy, abs=0.01)
