"""`hfclip embed` as a program: its output, its exit status, and how it ends when it is asked to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from pictures import draw_folder

from hfclip.cli import main
from hfclip.cli.embed import embed
from hfclip.embedding.part_files import complete_parts

# Shells start background jobs, possibly these tests too, with SIGINT ignored.
PROGRAM = """
import os, signal, sys, torch
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
Path(sys.argv[1]).write_text(str(os.getpid()))
from hfclip.cli import main
main(sys.argv[2:], prog_name="hfclip")
"""


def run(*arguments: str | Path) -> tuple[int, str, str]:
    command = ["embed", *map(str, arguments), "--model", "digits", "--device", "cpu"]
    result = CliRunner().invoke(main, command)
    return result.exit_code, result.stdout, result.stderr


def test_the_summary_counts_what_was_found_and_done(tmp_path: Path) -> None:
    folder, out = draw_folder(tmp_path / "pictures", 5), tmp_path / "out"
    (folder / "000.png").write_bytes(b"broken")
    status, printed, errors = run(folder, "-o", out)
    first, second, third = printed.splitlines()
    assert status == 0
    assert first == "4 of 5 inputs are embedded (5 new)."
    assert second.startswith("Encoded 5 in ")
    assert second.endswith(" a second) in float32, with the fast preprocess.")
    assert third == f"1 could not be read: see {out}/errors.csv"
    assert "Uses the fast preprocess. --preprocess exact gives OpenAI's pixels." in errors
    (folder / "004.png").rename(folder / "moved.png")
    (folder / "003.png").unlink()
    status, printed, errors = run(folder, "-o", out)
    assert status == 0
    counts = "1 deleted, 1 moved, 3 unchanged"
    assert printed.splitlines()[0] == f"3 of 4 inputs are embedded ({counts})."
    assert "Encoded" not in printed


def test_json_is_one_object(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "pictures", 3)
    status, printed, _ = run(folder, "-o", tmp_path / "out", "--json", "--preprocess", "exact")
    summary = json.loads(printed)
    assert status == 0
    expected = {"inputs": 3, "embedded": 3, "errors": 0, "pending": 0, "new": 3, "encoded": 3}
    assert {name: summary[name] for name in expected} == expected
    assert (summary["preprocess"], summary["errors_file"]) == ("exact", None)
    assert summary["rate"] == pytest.approx(3 / summary["seconds"])


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--part-of", "4/3"], 2, "'4/3'; expected a share such as 3/16, the third of 16."),
        (["--part-of", "0/3"], 2, "'0/3'; expected a share"),
        (["--part-of", "1/2", "--compact"], 2, "--compact needs a run without --part-of"),
        (["--background", "blackish"], 1, "The background is 'blackish'; expected a colour"),
        (["--address", "auto"], 2, "--address needs --engine ray."),
        (["--cpus-per-worker", "2"], 2, "--cpus-per-worker needs --engine ray."),
        (["--gpus-per-worker", "0.5"], 2, "--gpus-per-worker needs --engine ray."),
        (["--engine", "ray", "--gpus-per-worker", "1"], 1, "The device is cpu, but each worker"),
        (["--max-pixels", "0"], 2, "0 is not in the range"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    tmp_path: Path, arguments: list[str], status: int, reason: str
) -> None:
    folder = draw_folder(tmp_path / "pictures", 1)
    found, _, errors = run(folder, "-o", tmp_path / "out", *arguments)
    assert found == status
    assert reason in errors
    assert not (tmp_path / "out").exists()


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    status, _, errors = run(tmp_path / "nowhere", "-o", tmp_path / "out")
    assert status == 1
    assert f"{tmp_path}/nowhere does not exist." in errors


def test_a_missing_pyarrow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, errors = run(draw_folder(tmp_path / "pictures", 1), "-o", tmp_path / "out")
    assert status == 1
    assert 'pip install "hfclip[embed]"' in errors


def test_a_missing_ray_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    folder = draw_folder(tmp_path / "pictures", 1)
    status, _, errors = run(folder, "-o", tmp_path / "out", "--engine", "ray")
    assert status == 1
    assert '--engine ray needs Ray: pip install "hfclip[ray]"' in errors
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_does_not_answer_is_named_within_seconds(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    folder, began = draw_folder(tmp_path / "pictures", 1), time.monotonic()
    address = ["--engine", "ray", "--address", "127.0.0.1:9"]
    status, _, errors = run(folder, "-o", tmp_path / "out", *address)
    assert status == 1
    assert "The Ray cluster 127.0.0.1:9 cannot be reached (nothing answers there)." in errors
    assert time.monotonic() - began < 30.0


def test_an_address_of_ray_client_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    folder = draw_folder(tmp_path / "pictures", 1)
    address = ["--engine", "ray", "--address", "ray://head:10001"]
    status, _, errors = run(folder, "-o", tmp_path / "out", *address)
    assert status == 1
    assert "ray://head:10001 is an address of Ray Client. Start hfclip on a node" in errors


def test_the_help_names_every_option_and_shows_examples() -> None:
    printed = CliRunner().invoke(main, ["embed", "--help"]).stdout
    for option in embed.params:
        assert option.opts[0] in printed or option.name == "sources"
    assert 'hfclip embed "shards/*.tar" -o shards-embedded --part-of 1/4' in printed


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 1,000 pictures, which tests do not change."""
    return draw_folder(tmp_path_factory.mktemp("thousand") / "pictures", 1_000)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_batch_and_keeps_complete_parts(
    thousand: Path, tmp_path: Path, number: signal.Signals, python: Path
) -> None:
    folder, out, process = thousand, tmp_path / "out", tmp_path / "process"
    arguments = ["--model", "digits", "--device", "cpu", "--batch-size", "2", "--part-size", "20"]
    child = subprocess.Popen(
        [python, "-c", PROGRAM, process, "embed", folder, "-o", out, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while not complete_parts(out) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.005)
    os.kill(int(process.read_text()), number)  # the command itself forwards only SIGINT
    printed, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert "Ends after this batch." in errors
    assert "Complete parts are kept. The same command continues." in errors
    assert printed == ""
    complete = complete_parts(out)
    assert 0 < len(complete) < 50
    kept = {path: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    status, printed, _ = run(folder, "-o", out, "--part-size", "20", "--json")
    assert status == 0
    assert json.loads(printed)["encoded"] == 1_000 - 20 * len(complete)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
