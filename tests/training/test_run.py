"""A whole fine-tune: it learns, goes on to the bit, and refuses what does not belong together."""

import json
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from coloured import COLOURS
from safetensors.torch import load_file, save_file

import hfclip
from hfclip.data.examples import read_dataset
from hfclip.errors import ArgumentError, TrainingError
from hfclip.layouts.files import WEIGHTS_FILE
from hfclip.loading import load
from hfclip.model import CLIP
from hfclip.training import loop
from hfclip.training.base import find_base, load_base
from hfclip.training.checkpoints import newest_checkpoint, read_state
from hfclip.training.loop import Training
from hfclip.training.run import Finetuned, finetune

pytestmark = pytest.mark.usefixtures("no_curves")
QUICK: dict[str, Any] = {
    "device": "cpu",
    "lr": 3e-3,
    "epochs": 4,
    "batch_size": 8,
    "template": "a {} picture",
    "validation": 0.2,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def finished(coloured: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuned:
    return finetune(coloured, base, tmp_path_factory.mktemp("finished") / "out", **QUICK)


def weights(folder: Path) -> bytes:
    return (folder / WEIGHTS_FILE).read_bytes()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_it_learns_and_the_folder_loads(finished: Finetuned, coloured: Path) -> None:
    results = finished.results
    assert results.before.own.headline.value < 0.7
    assert results.tuned.own.headline.value == 1
    assert [epoch.number for epoch in results.epochs] == [0, 1, 2, 3, 4]
    assert results.labels == tuple(sorted(COLOURS))
    model, _ = load(finished.folder, "cpu")
    assert model.labels == results.labels
    assert len(read_dataset(coloured, validation=0.2).validation) == results.mixed.own.count


def test_the_log_has_a_line_for_each_step(finished: Finetuned) -> None:
    steps = [line for line in lines(finished.folder) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert max(line["lr"] for line in steps) == 3e-3
    assert {"scale", "floor", "pictures_per_second"} <= steps[0].keys()


def test_the_finished_folder_holds_no_checkpoint_and_is_not_trained_again(
    finished: Finetuned, coloured: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert newest_checkpoint(finished.folder / "checkpoints") is None
    before = weights(finished.folder)
    again = finetune(coloured, base, finished.folder, progress=True, **QUICK)
    assert again.status == "already finished"
    assert again.results.to_dict() == finished.results.to_dict()
    assert weights(finished.folder) == before
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize("stop_at", [1, 5, 12])
def test_a_training_that_was_interrupted_goes_on_to_the_bit(
    finished: Finetuned,
    coloured: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: int,
) -> None:
    report = Training._report

    def interrupting(self: Training, *values: Any) -> None:
        report(self, *values)
        if self.state.step == stop_at:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_report", interrupting)
        with pytest.raises(KeyboardInterrupt):
            finetune(coloured, base, tmp_path / "out", **QUICK)
    checkpoint = newest_checkpoint(tmp_path / "out" / "checkpoints")
    assert checkpoint is not None
    assert read_state(checkpoint).step == stop_at
    assert not (tmp_path / "out" / WEIGHTS_FILE).exists()
    done = finetune(coloured, base, tmp_path / "out", **QUICK)
    assert done.status == "trained"
    assert weights(done.folder) == weights(finished.folder)
    assert [line["step"] for line in lines(done.folder)] == [
        line["step"] for line in lines(finished.folder)
    ]
    assert done.results.mixed == finished.results.mixed


def test_chunks_and_threads_may_change_when_it_goes_on(
    coloured: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Training, "save", disk_full_at(2, Training.save))
        with pytest.raises(OSError, match="full"):
            finetune(coloured, base, tmp_path / "out", checkpoint_minutes=0, **QUICK)
    options = {**QUICK, "chunk": 3, "workers": 1}
    assert finetune(coloured, base, tmp_path / "out", **options).status == "trained"


def disk_full_at(step: int, save: Any) -> Any:
    def saving(self: Training) -> None:
        save(self)
        if self.state.step == step:
            raise OSError("the disk is full")

    return saving


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 1e-3}, "lr is 0.003 there and 0.001 here"),
        ({"seed": 1}, "its data is other; seed is 0 there and 1 here"),
        ({"steps": 9, "epochs": None}, "epochs is 4 there and None here; steps is None there"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_with_what_differs(
    finished: Finetuned, coloured: Path, base: Path, change: dict[str, Any], message: str
) -> None:
    before = weights(finished.folder)
    with pytest.raises(TrainingError, match=message):
        finetune(coloured, base, finished.folder, **{**QUICK, **change})
    assert weights(finished.folder) == before


def test_another_base_and_other_data_are_refused(
    finished: Finetuned, coloured: Path, base: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(base, tmp_path / "base")
    tensors = load_file(other / WEIGHTS_FILE, backend="pread")
    tensors["ln_final.bias"][3] += 1e-3
    save_file(tensors, other / WEIGHTS_FILE)
    with pytest.raises(TrainingError, match="its base is another"):
        finetune(coloured, other, finished.folder, **QUICK)
    fewer = shutil.copytree(coloured, tmp_path / "data")
    (fewer / "red" / "00.png").unlink()
    with pytest.raises(TrainingError, match="its data is other"):
        finetune(fewer, base, finished.folder, **QUICK)


def test_a_folder_with_something_else_is_refused(
    coloured: Path, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(TrainingError, match=r"holds thesis.tex and no training"):
        finetune(coloured, base, tmp_path, **QUICK)


def test_two_processes_cannot_train_in_one_folder(
    coloured: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, options = Training.run, {**QUICK, "epochs": 1}
    second: list[BaseException] = []

    def other() -> None:
        try:
            finetune(coloured, base, tmp_path / "out", **options)
        except TrainingError as error:
            second.append(error)

    def running(self: Training, *values: Any) -> None:
        if not second:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        run(self, *values)

    monkeypatch.setattr(Training, "run", running)
    assert finetune(coloured, base, tmp_path / "out", **options).status == "trained"
    assert "Another process trains in" in str(second[0])


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_a_loss_that_is_not_a_number_stops_before_the_weights_change(
    coloured: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    out = tmp_path / "out"
    encode = CLIP.encode_image
    calls: list[int] = []

    def faulty(self: CLIP, image: torch.Tensor) -> torch.Tensor:
        features = encode(self, image)
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) == 3:
                scale = torch.ones(len(features), 1)
                scale[2] = torch.nan
                if fault == "loss":
                    return features * scale
                features.register_hook(lambda gradient: gradient * scale)  # type: ignore[no-untyped-call]
        return features

    with monkeypatch.context() as patched:
        patched.setattr(CLIP, "encode_image", faulty)
        with pytest.raises(TrainingError, match=r"Step 3: the loss is .*nan") as caught:
            finetune(coloured, base, out, checkpoint_minutes=0, **QUICK)
    facts = json.loads((out / loop.STOPPED_FILE).read_text())
    assert facts["step"] == "3"
    assert len(facts["pictures"]) == 8
    assert facts["pictures"][0] in str(caught.value)
    assert len(facts["features_not_finite"]) == (1 if fault == "loss" else 0)
    checkpoint = newest_checkpoint(out / "checkpoints")
    assert checkpoint is not None
    assert read_state(checkpoint).step == 2
    kept = load_file(checkpoint / WEIGHTS_FILE, backend="pread")
    assert all(bool(each.isfinite().all()) for each in kept.values())
    assert finetune(coloured, base, out, **QUICK).status == "trained"


def test_a_base_in_half_precision_is_trained_in_float32_and_its_file_may_change(
    coloured: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = shutil.copytree(base, tmp_path / "half")
    tensors = {name: each.half() for name, each in load_file(half / WEIGHTS_FILE).items()}
    save_file(tensors, half / WEIGHTS_FILE)
    content = weights(half)
    run = Training.run
    dtypes: set[torch.dtype] = set()

    def truncating(self: Training, *values: Any) -> None:
        dtypes.update(each.dtype for each in self.model.parameters())
        assert weights(half) == content
        with (half / WEIGHTS_FILE).open("r+b") as file:
            file.truncate(64)
        run(self, *values)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "run", truncating)
        done = finetune(coloured, half, tmp_path / "out", **QUICK)
    assert dtypes == {torch.float32}
    (half / WEIGHTS_FILE).write_bytes(content)
    same = finetune(coloured, half, tmp_path / "same", **QUICK)
    assert weights(done.folder) == weights(same.folder)
    assert weights(half) == content


def test_no_tensor_of_a_mapped_base_stays_mapped() -> None:
    source = find_base("digits")
    assert source.mapped
    mapped = CLIP.from_pretrained("digits")
    own = load_base(source)
    assert {each.dtype for each in own.parameters()} == {torch.float32}
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensor, mapped.state_dict()[name].float())
        owned = tensor.untyped_storage()
        assert owned.nbytes() == tensor.numel() * tensor.element_size()


def test_without_mixing_the_trained_weights_are_published(
    finished: Finetuned, coloured: Path, base: Path, tmp_path: Path
) -> None:
    plain = finetune(coloured, base, tmp_path / "out", **{**QUICK, "mix": False})
    assert plain.results.alpha == 1
    assert plain.results.alphas == {}
    assert plain.results.mixed == finished.results.tuned


def test_a_frozen_tower_keeps_its_weights(coloured: Path, base: Path, tmp_path: Path) -> None:
    options = {**QUICK, "train": "image", "mix": False, "epochs": 1}
    done = finetune(coloured, base, tmp_path / "out", **options)
    before, after = (load_file(folder / WEIGHTS_FILE) for folder in (base, done.folder))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "logit_scale" in changed
    assert all(name.startswith("visual.") for name in changed - {"logit_scale"})


def test_what_must_not_be_forgotten_is_measured(coloured: Path, base: Path, tmp_path: Path) -> None:
    options = {**QUICK, "epochs": 1}
    done = finetune(coloured, base, tmp_path / "out", keep=coloured, **options)
    assert done.results.before.keep is not None
    assert done.results.before.keep.count == 36
    assert done.results.data.keep == 36


def test_a_limit_draws_a_part_of_the_pictures(coloured: Path, base: Path, tmp_path: Path) -> None:
    done = finetune(coloured, base, tmp_path / "out", limit=9, **{**QUICK, "epochs": 1})
    assert done.results.data.train == 9


def test_data_without_a_validation_split_is_refused(
    coloured: Path, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"no validation split"):
        finetune(coloured, base, tmp_path / "out", **{**QUICK, "validation": 0.0})
    assert not (tmp_path / "out").exists()


def test_an_unknown_setting_is_refused(coloured: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="'learning_rate' is unknown"):
        hfclip.finetune(coloured, base, tmp_path / "out", learning_rate=1)


def test_a_missing_accelerate_gives_one_line(
    coloured: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    with pytest.raises(TrainingError, match=r"pip install 'hfclip\[finetune\]'"):
        finetune(coloured, base, tmp_path / "out", **QUICK)


def test_the_same_data_in_another_format_gives_the_same_weights_and_goes_on(
    finished: Finetuned, coloured: Path, base: Path, tmp_path: Path
) -> None:
    pictures = sorted(coloured.glob("*/*.png"), key=lambda path: path.name)
    rows = [{"filepath": str(path), "label": path.parent.name} for path in pictures]
    (tmp_path / "data.csv").write_text(
        "filepath,label\n" + "".join(f"{row['filepath']},{row['label']}\n" for row in rows)
    )
    (tmp_path / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    table = finetune(tmp_path / "data.csv", base, tmp_path / "out", **QUICK)
    assert weights(table.folder) == weights(finished.folder)
    other = finetune(tmp_path / "data.jsonl", base, finished.folder, **QUICK)
    assert other.status == "already finished"
