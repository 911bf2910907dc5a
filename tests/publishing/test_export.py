import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_VIT, SavedModel

from hfclip.cli import main
from hfclip.config import ClipConfig
from hfclip.errors import ConfigError, ExportError
from hfclip.publishing.export import EXPORTS, export


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def folder(saved_model: SavedModel, tmp_path: Path) -> Path:
    saved_model.model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("layout", EXPORTS)
def test_weights_are_identical_after_a_round_trip(layout: str, folder: Path) -> None:
    out, back = folder.with_name("out"), folder.with_name("back")
    if layout == "transformers" and "ResNet" in (folder / "README.md").read_text():
        pytest.skip("transformers has no ResNet")
    export(folder, out, layout)
    export(out / "model.pt" if layout == "openai" else out, back, "hfclip")
    assert sha256(back / "model.safetensors") == sha256(folder / "model.safetensors")
    assert (back / "config.json").read_bytes() == (folder / "config.json").read_bytes()


@pytest.mark.parametrize("layout", [layout for layout in EXPORTS if layout != "openai"])
def test_models_with_other_mlps_are_identical_after_a_round_trip(
    layout: str, save_model: Callable[[ClipConfig, torch.dtype], SavedModel], tmp_path: Path
) -> None:
    config = replace(TINY_VIT, vision_mlp_width=100, transformer_mlp_width=37)
    save_model(config, torch.float32).model.save_pretrained(tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", layout)
    export(tmp_path / "out", tmp_path / "back", "hfclip")
    for name in ("model.safetensors", "config.json"):
        assert sha256(tmp_path / "back" / name) == sha256(tmp_path / "model" / name)
    for name in ("out", "back"):
        assert (
            "64 with MLPs of width 37, 1 attention" in (tmp_path / name / "README.md").read_text()
        )


def test_a_path_with_a_tilde_is_written_in_the_home_folder(
    saved_vit: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    export(saved_vit.archive, Path("~/out"), "openai")
    assert (tmp_path / "out" / "model.pt").is_file()
    assert not Path("~").exists()


def test_an_invalid_export_is_refused_and_writes_nothing(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="expected one of hfclip, open_clip"):
        export(saved_vit.archive, tmp_path / "out", "flax")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"already holds notes\.txt"):
        export(saved_vit.archive, tmp_path / "taken", "open_clip")
    export(saved_vit.archive, tmp_path / "taken", "open_clip", force=True)
    assert (tmp_path / "taken" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_onnx_without_its_extra_names_the_package_to_install(
    saved_vit: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExportError, match=r"pip install 'hfclip\[onnx\]'"):
        export(saved_vit.archive, tmp_path / "out", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_graphs_are_small_and_contain_no_local_paths(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    export(saved_vit.archive, tmp_path / "one", "onnx")
    export(saved_vit.archive, tmp_path / "two", "onnx")
    for name in ("image.onnx", "text.onnx"):
        graph = (tmp_path / "one" / name).read_bytes()
        assert graph == (tmp_path / "two" / name).read_bytes()
        assert len(graph) < 100_000
        assert str(Path.cwd()).encode() not in graph
        assert b".py" not in graph


def test_the_command_lists_the_written_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["export", "digits", str(out), "--layout", "open_clip"])
    assert result.exit_code == 0, result.output
    assert f"8,208,946  {out}/open_clip_model.safetensors" in result.output
    again = CliRunner().invoke(main, ["export", "digits", str(out), "--layout", "open_clip"])
    assert again.exit_code == 1
    assert "replace the files of the same names with --force" in again.output
