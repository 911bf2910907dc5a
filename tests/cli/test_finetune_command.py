"""The command `hfclip finetune`: from a folder of pictures to a folder that classifies them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from coloured import COLOURS, picture, small_model

from hfclip.cli import main
from hfclip.layouts.files import WEIGHTS_FILE

OPTIONS = [
    "--device", "cpu", "--lr", "3e-3", "--batch-size", "8", "--template", "a {} picture",
    "--validation", "0.2", "--precision", "fp32",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with data/ and base/."""
    folder = tmp_path_factory.mktemp("finetune")
    for place, (label, colour) in enumerate(COLOURS.items()):
        (folder / "data" / label).mkdir(parents=True)
        for number in range(12):
            content = picture(colour, 100 * place + number)
            (folder / "data" / label / f"{number:02d}.png").write_bytes(content)
    small_model().save_pretrained(folder / "base")
    return folder


def arguments(folder: Path, out: str, *more: str) -> list[str]:
    names = [str(folder / "data"), "--base", str(folder / "base"), "-o", str(folder / out)]
    return ["finetune", *names, *OPTIONS, *more]


def test_it_prints_the_processes_first_and_a_table_last(folder: Path) -> None:
    result = CliRunner().invoke(main, arguments(folder, "table", "--epochs", "3"))
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("1 process on cpu")
    assert "before training: accuracy" in result.stderr
    assert "after epoch 3: accuracy 100.00%" in result.stderr
    assert "fine-tuned" in result.stdout
    assert f"hfclip publish {folder / 'table'}" in result.stdout
    names = {path.name for path in (folder / "table").iterdir()}
    assert {"README.md", "finetune.json", "labels.json", "log.jsonl", WEIGHTS_FILE} <= names
    seen = str(folder / "data" / "red" / "03.png")
    options = ["--model", str(folder / "table"), "--top", "1", "--json", "--no-label-cache"]
    classified = CliRunner().invoke(main, ["classify", seen, *options])
    assert classified.exit_code == 0, classified.output
    assert "red" in classified.stdout


def test_json_is_one_object_and_the_second_run_does_nothing(folder: Path) -> None:
    command = arguments(folder, "json", "--epochs", "1", "--json")
    first, second = (CliRunner().invoke(main, command) for _ in range(2))
    found = json.loads(first.stdout)
    assert found["status"] == "trained"
    assert found["labels"] == sorted(COLOURS)
    again = json.loads(second.stdout)
    assert again == found | {"status": "already finished"}
    assert "nothing to do" in second.stderr


def test_what_is_skipped_or_truncated_is_listed_up_to_the_share_that_is_allowed(
    folder: Path, tmp_path: Path
) -> None:
    rows = [f"{folder}/data/red/{number:02d}.png,a red picture {number}" for number in range(12)]
    rows[3] += " of" * 80
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["image,caption", *rows, "missing.png,none"]))
    base, out = str(folder / "base"), tmp_path / "out"
    command = ["finetune", str(table), "--base", base, "-o", str(out), *OPTIONS, "--steps", "1"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert "1 of 13 pictures or rows cannot be used" in refused.stderr
    assert "raise max_skipped (--max-skipped)" in refused.stderr
    allowed = CliRunner().invoke(main, [*command, "--max-skipped", "0.1"])
    assert allowed.exit_code == 0, allowed.output
    assert (out / "skipped.csv").read_text().splitlines() == [
        "key,reason",
        "table.csv:14,no such file",
        'table.csv:5,"truncated: 84 tokens in a caption, of which 75 are used"',
    ]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--lr", "0"], "lr is 0.0"),
        (["--epochs", "1", "--steps", "1"], "not both"),
        (["--base", "no/such/base"], "no/such/base"),
    ],
)
def test_a_mistake_gives_one_line(folder: Path, option: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments(folder, "mistake", *option))
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_two_processes_train_one_model(folder: Path, python: Path) -> None:
    options = ["--steps", "4", "--no-mix", "--json"]
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    done = subprocess.run(
        [python, "-m", *launch, python, "-m", "hfclip", *arguments(folder, "two", *options)],
        check=True,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert "2 processes on cpu" in done.stderr
    two = json.loads(done.stdout)  # printed once
    assert two["processes"] == 2
    one = CliRunner().invoke(main, arguments(folder, "one", *options))
    losses = [
        [json.loads(line).get("loss") for line in path.read_text().splitlines()]
        for path in (folder / "one" / "log.jsonl", folder / "two" / "log.jsonl")
    ]
    assert len(losses[0]) > 4
    pairs = [(a, b) for a, b in zip(*losses, strict=True) if a is not None]
    assert pairs == [(a, pytest.approx(a, abs=1e-4)) for a, _ in pairs]
    assert json.loads(one.stdout)["mixed"] == two["mixed"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_ctrl_c_ends_after_the_step_with_a_checkpoint_and_status_130(
    folder: Path, python: Path
) -> None:
    command = [str(python), "-m", "hfclip", *arguments(folder, "stopped", "--epochs", "200")]
    log = folder / "stopped" / "log.jsonl"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        while not (log.is_file() and '"loss"' in log.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert process.returncode == 130
    assert "Ends after this step" in told
    assert "Traceback" not in told
    (checkpoint,) = (folder / "stopped" / "checkpoints").glob("step-*")
    state = json.loads((checkpoint / "state.json").read_text())
    assert 0 < state["step"] < 600
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert max(steps) == state["step"]
