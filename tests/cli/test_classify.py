"""`hfclip classify`: labels, templates, the label cache and output formats."""

import codecs
import json
import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from huggingface_hub import constants
from torch import Tensor

import hfclip
from hfclip.cli import encoding, main
from hfclip.fast.optimize import FastCLIP
from hfclip.images import reading
from hfclip.loading import load_source
from hfclip.sources.find import find
from hfclip.zeroshot.classifier import ZeroShotClassifier
from hfclip.zeroshot.templates import IMAGENET_TEMPLATES

DIGITS = Path(hfclip.__file__).parent / "digits"
SEVEN = str(DIGITS / "seven.png")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    return home


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the class of each encoder whose encode_text is called."""
    calls: list[str] = []

    def spied(kind: type) -> Callable[[Any, Tensor], Tensor]:
        encode: Callable[[Any, Tensor], Tensor] = kind.encode_text  # type: ignore[attr-defined]

        def spy(model: Any, text: Tensor) -> Tensor:
            calls.append(kind.__name__)
            return encode(model, text)

        return spy

    for kind in (hfclip.CLIP, FastCLIP):
        monkeypatch.setattr(kind, "encode_text", spied(kind))
    return calls


def classify(*arguments: str) -> Result:
    options = ("--model", "digits", "--backend", "torch")
    return CliRunner().invoke(main, ["classify", *options, *arguments])


def labels_of(*arguments: str) -> dict[str, float]:
    """Returns the labels and probabilities of one picture."""
    result = classify(SEVEN, "--json", "--top", "99", *arguments)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    return {guess["label"]: guess["probability"] for guess in row["labels"]}


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    "content",
    [
        b"one\nseven, a digit\nzw\xc3\xb6lf\n",
        b"\n  one \n\nseven, a digit\t\nzw\xc3\xb6lf\n \n",
        b"one\r\nseven, a digit\r\nzw\xc3\xb6lf",
        b"one\rseven, a digit\rzw\xc3\xb6lf\r",
        codecs.BOM_UTF8 + b"one\r\nseven, a digit\r\nzw\xc3\xb6lf\r\n",
        "\ufeffone\r\nseven, a digit\r\nzwölf\r\n".encode("utf-16-le"),
        "\ufeffone\nseven, a digit\nzwölf\n".encode("utf-16-be"),
    ],
    ids=["plain", "blank lines", "CRLF", "CR", "BOM", "UTF-16", "UTF-16 big-endian"],
)
def test_a_file_has_a_label_on_each_line_that_is_not_blank(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "labels.txt", content)
    assert set(labels_of("--labels-file", path)) == {"one", "seven, a digit", "zwölf"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ncaf\xe9\n", "labels.txt is not in UTF-8: line 2 has the byte 0xe9. Save it as"),
        (b"one\0two", "labels.txt is not a text file: it contains NUL bytes."),
        (b"o\0n\0e\0", "labels.txt is not a text file: it contains NUL bytes."),
        (b"", "labels.txt is empty; expected one label or template per line."),
        (b"\n \r\n", "labels.txt is empty"),
        (b"cat\n\ndog\ncat \n", "labels.txt: line 4 repeats line 1, 'cat'. Give each label once."),
        (b"\xff\xfeo", "labels.txt is not in UTF-8"),
    ],
)
def test_a_file_with_invalid_labels_is_refused_and_the_line_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    result = classify(SEVEN, "--labels-file", write(tmp_path / "labels.txt", content))
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give exactly one of --labels and --labels-file."),
        (["--labels", "a,b", "--labels-file", "FILE"], "Give exactly one of --labels"),
        (
            ["--labels", "a", "--templates", "imagenet", "--template", "{}"],
            "Give only one of --template, --templates and --templates-file.",
        ),
        (["--labels", "a", "--templates-file", "FILE", "--template", "{}"], "Give only one of"),
        (["--labels", "a", "--templates-file", "FILE", "--templates", "imagenet"], "Give only"),
        (["--labels-file", "nowhere.txt"], "'nowhere.txt' does not exist"),
        (["--labels", "a", "--templates", "cifar"], "'cifar' is not 'imagenet'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    path = write(tmp_path / "lines.txt", b"{}")
    result = classify(SEVEN, *[path if part == "FILE" else part for part in arguments])
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            "cat,dog,",
            "Label 3 of --labels is empty. Give at least one label, and no empty label. Commas",
        ),
        (",cat", "Label 1 of --labels is empty"),
        ("cat, ,dog", "Label 2 of --labels is empty"),
        ("", "Label 1 of --labels is empty"),
        ("cat,dog,cat", "Labels occur more than once: cat. Give each label once."),
    ],
)
def test_invalid_labels_are_refused_before_the_model_is_loaded(
    labels: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfclip.sources.find.find", None)
    result = classify(SEVEN, "--labels", labels)
    assert result.exit_code == 1
    assert message in result.stderr


def test_one_label_is_classified_with_a_warning() -> None:
    result = classify(SEVEN, "--labels", "seven")
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: there is one label, 'seven', so each picture gets")
    assert result.stdout.splitlines()[1].split() == ["seven", "100.00%"]


def expected(labels: list[str], templates: Any) -> dict[str, float]:
    model, _ = hfclip.load("digits", device="cpu")
    (row,) = ZeroShotClassifier(model, labels, templates).rank(SEVEN)
    return {guess.label: guess.probability for guess in row}


def test_the_templates_of_imagenet_are_averaged() -> None:
    found = labels_of("--labels", "one,seven", "--templates", "imagenet")
    assert found == expected(["one", "seven"], IMAGENET_TEMPLATES)
    assert found != expected(["one", "seven"], ["a photo of a {}"])


def test_the_templates_of_a_file_are_averaged(tmp_path: Path) -> None:
    path = write(tmp_path / "t.txt", b"\xef\xbb\xbfa photo of {}, a digit\r\n\r\nthe {}.\r\n")
    found = labels_of("--labels", "one,seven", "--templates-file", path)
    assert found == expected(["one", "seven"], ["a photo of {}, a digit", "the {}."])
    default = labels_of("--labels", "one,seven")
    assert default == expected(["one", "seven"], ["a photo of a {}"])


def test_a_line_without_a_place_for_the_label_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.txt", b"a {}\n\na photo\n")
    result = classify(SEVEN, "--labels", "one,seven", "--templates-file", path)
    assert result.exit_code == 1
    assert "t.txt: line 3, 'a photo', has no {} where the label goes, as in" in result.stderr


@pytest.mark.parametrize("many", [1, 10_000], ids=["optimized", "as loaded"])
def test_labels_are_encoded_once_and_the_results_stay_identical(
    encoded: list[str], monkeypatch: pytest.MonkeyPatch, many: int, home: Path
) -> None:
    monkeypatch.setattr(encoding, "MANY_CAPTIONS", many)
    arguments = ("--labels", "one,two,seven", "--templates", "imagenet")
    without = labels_of(*arguments, "--no-label-cache")
    assert not (home / "hfclip" / "labels").exists()
    first = labels_of(*arguments)
    assert "FastCLIP" in encoded if many == 1 else set(encoded) == {"CLIP"}
    encoded.clear()
    assert labels_of(*arguments) == first == without
    assert encoded == []
    assert labels_of(*arguments, "--no-label-cache") == first
    assert len(encoded) > 0


def test_other_labels_or_templates_are_encoded(encoded: list[str]) -> None:
    labels_of("--labels", "one,seven")
    for arguments in (["--labels", "seven,one"], ["--labels", "one,seven", "--template", "{}"]):
        encoded.clear()
        labels_of(*arguments)
        assert encoded == ["CLIP"]


def test_a_damaged_entry_is_encoded_and_written_again(encoded: list[str], home: Path) -> None:
    first = labels_of("--labels", "one,seven")
    (entry,) = (home / "hfclip" / "labels").iterdir()
    entry.write_bytes(entry.read_bytes()[:-9])
    encoded.clear()
    assert labels_of("--labels", "one,seven") == first
    assert encoded == ["CLIP"]
    assert labels_of("--labels", "one,seven") == first
    assert encoded == ["CLIP"]


def test_many_captions_are_encoded_by_the_optimized_model_and_few_pictures_are_not() -> None:
    encoders = encoding.Encoders(hfclip.load("digits", device="cpu")[0])
    assert encoders.for_captions(255) is encoders.model
    assert isinstance(encoders.for_captions(256), FastCLIP)
    assert encoders.for_captions(256) is encoders.for_pictures(64)
    assert encoders.for_pictures(1) is encoders.model
    encoders.model.to("meta")
    assert encoders.for_captions(256) is encoders.model


def test_the_namespace_and_the_device_reach_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    devices: list[torch.device] = []

    def spy_find(name: str, **options: Any) -> Any:
        found.append((name, options))
        return find("digits")

    def spy_load(source: Any, device: torch.device) -> Any:
        devices.append(device)
        return load_source(source, torch.device("cpu"))

    monkeypatch.setattr("hfclip.sources.find.find", spy_find)
    monkeypatch.setattr("hfclip.loading.load_source", spy_load)
    monkeypatch.setattr("hfclip.devices.choose_device", torch.device)
    labels = ("--labels", "one,seven", "--no-label-cache")
    labels_of(*labels, "--namespace", "me", "--base", "ViT-B/16", "--device", "cuda:1")
    options = {"namespace": "me", "base": "ViT-B/16", "subfolder": None, "variant": None}
    assert found == [("digits", options)]
    assert devices == [torch.device("cuda:1")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "which torch does not know; expected 'cpu', 'cuda'"), ("cuda", "cannot be used here")],
)
def test_a_missing_device_is_one_message(device: str, message: str) -> None:
    result = classify(SEVEN, "--labels", "one,seven", "--device", device)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_name_that_is_not_in_utf_8_is_printed_with_question_marks(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(path)).write_bytes(Path(SEVEN).read_bytes())
    result = classify(os.fsdecode(path), str(tmp_path / "no\udce9.png"), "--labels", "one,seven")
    assert result.stdout.splitlines()[0] == f"{tmp_path}/caf?.png"
    assert result.stderr.startswith(f"Error: {tmp_path}/no?.png: no such file")
    (tmp_path / "notes\udce9.txt").touch()
    skipped = classify(str(tmp_path), "--labels", "one,seven")
    assert skipped.stderr == f"1 file was skipped: {tmp_path}/notes?.txt\n"
    as_json = json.loads(classify(os.fsdecode(path), "--labels", "one,seven", "--json").stdout)
    assert os.fsencode(as_json[0]["image"]) == path


def copies(folder: Path, count: int) -> str:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(Path(SEVEN).read_bytes())
    return str(folder)


def test_failures_among_many_pictures_are_counted_at_the_end(tmp_path: Path) -> None:
    folder = copies(tmp_path / "many", 18)
    (tmp_path / "many" / "broken.png").write_bytes(b"no picture")
    result = classify(folder, "--labels", "one,seven")
    assert result.exit_code == 1
    error, last = result.stderr.splitlines()
    assert "broken.png: not a picture" in error
    assert last == "1 of 19 could not be read."


def test_json_lines_has_an_object_for_each_picture(tmp_path: Path) -> None:
    folder = copies(tmp_path / "many", 20)
    (tmp_path / "many" / "zz.png").write_bytes(b"no picture")
    lines = classify(folder, "--labels", "one,seven", "--json-lines").stdout.splitlines()
    whole = json.loads(classify(folder, "--labels", "one,seven", "--json").stdout)
    assert [json.loads(line) for line in lines] == whole
    assert len(lines) == 21
    assert "not a picture" in json.loads(lines[20])["error"]


@pytest.fixture
def interrupted_in_the_third_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_each = reading.prepare_each
    calls: list[int] = []

    def interrupt(pictures: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(len(pictures))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return prepare_each(pictures, *arguments, **options)

    monkeypatch.setattr(reading, "prepare_each", interrupt)


@pytest.mark.usefixtures("interrupted_in_the_third_batch")
@pytest.mark.parametrize("form", ["--json", "--json-lines", "text"])
def test_an_interruption_keeps_the_complete_results(tmp_path: Path, form: str) -> None:
    folder = copies(tmp_path / "many", 50)
    options = [] if form == "text" else [form]
    result = classify(folder, "--labels", "one,seven", *options)
    assert result.exit_code != 0
    if form == "--json":
        names = [row["image"] for row in json.loads(result.stdout)]
    elif form == "--json-lines":
        names = [json.loads(line)["image"] for line in result.stdout.splitlines()]
    else:
        names = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert names == [str(Path(folder, f"{number:03}.png")) for number in range(32)]


WAITING = """
import signal, sys, hfclip.images.reading as images
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has it switched off
from hfclip.cli import main
prepare_each = images.prepare_each
def wait(pictures, *arguments, **options):
    if "016" in pictures[0]:
        print("waiting", file=sys.stderr, flush=True)
        sys.stdin.readline()
    return prepare_each(pictures, *arguments, **options)
images.prepare_each = wait
main(sys.argv[1:], prog_name="hfclip")
"""


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


@pytest.mark.parametrize(("form", "per_picture"), [("--json-lines", 1), ("--no-label-cache", 3)])
def test_results_are_written_after_each_batch(
    tmp_path: Path, home: Path, python: Path, form: str, per_picture: int
) -> None:
    folder = copies(tmp_path / "many", 20)
    command = ["classify", folder, "--model", "digits", "--labels", "one,seven", form]
    with subprocess.Popen(
        [python, "-c", WAITING, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(home),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # The second batch waits for this test, so these lines belong to the first.
        early = [process.stdout.readline() for _ in range(16 * per_picture)]
        assert "015.png" in early[15 * per_picture]
        process.stdin.write("\n")
        process.stdin.flush()
        assert len(process.stdout.readlines()) == 4 * per_picture
    assert process.returncode == 0


def read_terminal(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # Linux raises this when the other end is closed
            return
        if not part:
            return
        yield part


def shown(written: str) -> list[str]:
    """Returns the visible lines of a terminal: a carriage return overwrites the line."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        column = 0
        for character in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line):
            if character == "\r":
                column = 0
                continue
            cells[column : column + 1] = [character]
            column += 1
        lines.append("".join(cells).rstrip())
    return lines


@pytest.mark.parametrize("form", ["--json-lines", "--auto-orient"], ids=["lines", "text"])
def test_results_and_the_bar_do_not_share_a_line_on_a_terminal(
    tmp_path: Path, home: Path, python: Path, form: str
) -> None:
    folder = copies(tmp_path / "many", 40)
    (tmp_path / "many" / "020.png").write_bytes(b"no picture")
    command = ["-m", "hfclip", "classify", folder, "--model", "digits", "--labels", "one,seven"]
    command += [part for n in range(200) for part in ("--template", f"{{}} {n}")]
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 300))
    with subprocess.Popen(
        [python, *command, form],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(home), "TQDM_MININTERVAL": "0"},
    ) as process:
        os.close(theirs)
        written = b"".join(read_terminal(ours)).decode()
    os.close(ours)
    assert process.returncode == 1
    assert "encoding labels: " in written  # the progress bar of the captions
    assert "image/s" in written  # the progress bar of the pictures
    lines = [line for line in shown(written) if line]
    bars = [line for line in lines if "%|" in line]
    results = [line for line in lines if "%|" not in line]
    assert len(bars) == 1  # the last state of the bar stays
    assert bars[0].startswith("100%|")
    if form == "--json-lines":
        rows = [json.loads(line) for line in results[:40]]
        assert [Path(row["image"]).name for row in rows] == [f"{n:03}.png" for n in range(40)]
    else:
        assert sum(line.startswith("Error: ") for line in results) == 1
        assert len(results) == 39 * 3 + 1 + 1
        for line in results:
            assert re.fullmatch(
                rf"{re.escape(folder)}/\d+\.png|  (one  |seven)  +\d+\.\d\d%|Error: .*|1 of 40 .*",
                line,
            ), line


@pytest.mark.parametrize("form", ["--json", "--json-lines", "--no-label-cache"])
def test_ctrl_c_ends_with_status_130_and_the_complete_results(
    tmp_path: Path, home: Path, python: Path, form: str
) -> None:
    folder = copies(tmp_path / "many", 40)
    command = ["classify", folder, "--model", "digits", "--labels", "one,seven", form]
    with subprocess.Popen(
        [python, "-c", WAITING, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == "waiting\n"  # in the second batch
        process.send_signal(signal.SIGINT)
        written, complaints = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in complaints
    if form == "--json":
        names = [row["image"] for row in json.loads(written)]
    elif form == "--json-lines":
        names = [json.loads(line)["image"] for line in written.splitlines()]
    else:
        names = [line for line in written.splitlines() if not line.startswith(" ")]
    assert names == [str(Path(folder, f"{number:03}.png")) for number in range(16)]
