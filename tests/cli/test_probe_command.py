"""`hfclip probe`, and `hfclip classify --probe`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from digit_folder import digit, embed_digits, write_digits

import hfclip
from hfclip.cli import main
from hfclip.probing import training

PROBE = ("--template", "a handwritten {}", "--device", "cpu")


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with 300 turned digits, their embeddings, and a probe."""
    desk = tmp_path_factory.mktemp("desk")
    embed_digits(write_digits(desk / "turned", 300, turned=True), desk / "out")
    result = command(
        *("probe", desk / "out", "--labels-from", "folder", "-o", desk / "probe"), *PROBE
    )
    assert result.exit_code == 0, result.output
    return desk


@pytest.fixture
def run(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(desk)
    return command


def test_the_report_has_both_accuracies_of_each_class(run: Callable[..., Result]) -> None:
    result = run("probe", "out", "--labels-from", "folder", *PROBE)
    assert result.exit_code == 0, result.output
    printed = run("probe", "out", "--labels-from", "folder", "--json", *PROBE)
    report = json.loads(printed.stdout)
    lines = result.stdout.splitlines()
    counts = report["counts"]
    assert lines[0] == (
        f"{counts['train']} pictures for training, {counts['validation']} for validation, "
        f"{counts['test']} for the test (divided at random); 10 classes."
    )
    assert f"C = {report['training']['c']:.4g}, accuracy on validation" in lines[1]
    table = {line.split()[0]: line.split()[1:] for line in lines[4:15]}
    probe, zero_shot = report["probe"], report["zero_shot"]
    assert table["accuracy"] == [
        str(counts["test"]),
        f"{probe['accuracy']:.2%}",
        f"{zero_shot['accuracy']:.2%}",
    ]
    assert table.keys() - {"accuracy"} == probe["per_class"].keys() == set(report["labels"])
    worst = probe["confusions"][0]
    assert f"  {worst['label']} taken for {worst['guess']}: {worst['pictures']}" in lines
    assert probe["accuracy"] > zero_shot["accuracy"] + 0.2


def test_few_shots_are_reported(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FOLDS", 2)  # half the fits
    arguments = ("probe", "out", "--labels-from", "folder", "--shots", 4, "--seeds", 2, *PROBE)
    result = run(*arguments, "-o", tmp_path / "few")
    assert result.exit_code == 0, result.output
    few = json.loads((tmp_path / "few/probe.json").read_text())["training"]["few_shot"]
    assert (
        f"4 of each class, 2 draws: mean accuracy {few['mean']:.2%}, standard deviation "
        f"{few['deviation']:.2%}." in result.stdout
    )
    assert few["seeds"] == [0, 1]
    assert json.loads(run(*arguments, "--json").stdout)["few_shot"] == few


def test_a_probe_classifies_pictures_and_their_embeddings_alike(
    run: Callable[..., Result], desk: Path
) -> None:
    embedded = json.loads(run("classify", "out", "--probe", "probe", "--json").stdout)
    read = json.loads(
        run("classify", "turned", "--probe", "probe", "--json", "--device", "cpu").stdout
    )
    assert len(embedded) == len(read) == 300
    assert [row["image"] for row in embedded] == [row["image"] for row in read]
    for row, other in zip(embedded, read, strict=True):
        assert [len(row["labels"]), row["labels"][0]["label"]] == [5, other["labels"][0]["label"]]
        assert row["labels"][0]["probability"] == pytest.approx(
            other["labels"][0]["probability"], abs=0.02
        )
    right = sum(row["labels"][0]["label"] in row["image"] for row in embedded)
    assert right >= 270
    ranked = hfclip.LinearProbe.load(desk / "probe").rank(hfclip.Embeddings(desk / "out"), 5)
    assert embedded[7]["labels"] == [guess._asdict() for guess in ranked[7]]


def test_new_pictures_and_broken_ones_are_classified(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    digit(400, turned=True).save(tmp_path / "new.png")
    (tmp_path / "bad.png").write_bytes(b"broken")
    result = run(
        *("classify", tmp_path / "bad.png", tmp_path / "new.png", "--probe", "probe", "--json"),
        *("--top", 1, "--device", "cpu"),
    )
    assert result.exit_code == 1
    bad, new = json.loads(result.stdout)
    assert "bad.png" in bad["error"]
    assert len(new["labels"]) == 1


def test_options_that_contradict_a_probe_are_refused(run: Callable[..., Result]) -> None:
    cases = {
        ("--labels", "a,b"): (2, "Leave out --labels: the probe has labels of its own."),
        ("--template", "a {}"): (2, "Leave out --template"),
        ("--base", "x"): (2, "Leave out --base: the "),
        ("--model", "ViT-B/16"): (1, "--model is ViT-B/16, but probe was made with 'digits'"),
    }
    for arguments, (status, message) in cases.items():
        for what in ("out", "turned"):
            result = run("classify", what, "--probe", "probe", *arguments)
            assert (result.exit_code, message in result.stderr) == (status, True), result.output
    assert run("classify", "out", "--probe", "probe", "--model", "digits").exit_code == 0
    result = run("classify", "out", "--probe", "turned")
    assert result.exit_code == 1
    assert "not a folder that `hfclip probe` wrote" in result.stderr


def test_a_probe_of_another_model_is_refused(
    run: Callable[..., Result], desk: Path, tmp_path: Path
) -> None:
    facts = json.loads((desk / "probe/probe.json").read_text())
    facts["model"]["sha256"] = "1" * 64
    (tmp_path / "probe.json").write_text(json.dumps(facts))
    (tmp_path / "probe.safetensors").write_bytes((desk / "probe/probe.safetensors").read_bytes())
    result = run("classify", "out", "--probe", tmp_path)
    assert result.exit_code == 1
    assert "was trained on embeddings of 'digits' (sha256 111111111111)" in result.stderr
    result = run("classify", "turned", "--probe", tmp_path, "--device", "cpu")
    assert result.exit_code == 1
    assert "are not those that made the embeddings" in result.stderr


def test_labels_and_folders_are_checked_before_the_work(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ("--labels-from", "folder")
    cases: dict[tuple[object, ...], tuple[int, str]] = {
        (): (2, "Give exactly one of --labels-from and --labels-file."),
        ("--labels-from", "species"): (1, "expected 'folder' or 'caption'"),
        ("--labels-from", "caption"): (1, "No picture of out has a caption"),
        (*labels, "-o", "turned"): (1, "turned already holds"),
        (*labels, "--test", "2"): (1, "test is 2.0; expected a share between 0 and 1"),
        (*labels, "--template", "a"): (1, "no {}"),
    }
    for arguments, (status, message) in cases.items():
        result = run("probe", "out", *arguments)
        assert (result.exit_code, message in result.stderr) == (status, True), result.output
        assert result.stdout == ""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = run("probe", "out", *labels, "-o", tmp_path / "probe")
    assert (result.exit_code, result.stderr) == (
        1,
        'Error: A probe needs scikit-learn: pip install "hfclip[probe]"\n',
    )
    assert not (tmp_path / "probe").exists()


def test_labels_of_a_file_are_used_and_unknown_keys_counted(
    run: Callable[..., Result], desk: Path, tmp_path: Path
) -> None:
    keys = list(hfclip.Embeddings(desk / "out").keys)
    lines = [
        "key,label",
        *(f"{key},{'odd' if n % 2 else 'even'}" for n, key in enumerate(keys[:90])),
    ]
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "none.png,odd"]))
    result = run("probe", "out", "--labels-file", tmp_path / "labels.csv", *PROBE)
    assert result.exit_code == 0, result.output
    assert "; 2 classes." in result.stdout
    assert "210 pictures have no label, 0 no embedding." in result.stdout
    assert "1 keys of the file are not in the collection." in result.stdout


def test_classifying_embeddings_with_a_probe_imports_neither_torch_nor_scikit_learn(
    desk: Path,
) -> None:
    code = (
        "import sys; from hfclip.cli import main\n"
        "try: main(['classify', 'out', '--probe', 'probe', '--top', '1'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        cwd=desk,
        env={**os.environ, "PYTHONPATH": str(Path(hfclip.__file__).parents[1])},
    )
