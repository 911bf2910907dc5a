import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_VIT, SavedModel
from exported import OTHER_MLPS, RESNET, SHALLOW_VIT, VIT, Export

from hfclip.cli import main
from hfclip.config import ClipConfig
from hfclip.errors import ConfigError, ExportError
from hfclip.model import CLIP
from hfclip.publishing.export import EXPORTS, export


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


SaveModel = Callable[[ClipConfig, torch.dtype], SavedModel]
OnnxExport = Callable[[ClipConfig, torch.dtype], Export]


def exported(model: CLIP, layout: str, folder: Path) -> Export:
    """Saves a model and exports it, both into new folders inside `folder`."""
    model.save_pretrained(folder / "model")
    return Export(folder / "model", export(folder / "model", folder / "out", layout))


@pytest.mark.parametrize("layout", EXPORTS)
def test_weights_are_identical_after_a_round_trip(
    layout: str, saved_model: SavedModel, onnx_export: OnnxExport, tmp_path: Path
) -> None:
    model = saved_model.model
    if layout == "transformers" and model.config.is_resnet:
        pytest.skip("transformers has no ResNet")
    if layout == "onnx":
        vit = VIT if model.dtype == torch.float32 else SHALLOW_VIT
        made = onnx_export(RESNET if model.config.is_resnet else vit, model.dtype)
    else:
        made = exported(model, layout, tmp_path)
    out, back = made.folder, tmp_path / "back"
    export(out / "model.pt" if layout == "openai" else out, back, "hfclip")
    assert sha256(back / "model.safetensors") == sha256(made.source / "model.safetensors")
    assert (back / "config.json").read_bytes() == (made.source / "config.json").read_bytes()


@pytest.mark.parametrize("layout", [layout for layout in EXPORTS if layout != "openai"])
def test_models_with_other_mlps_are_identical_after_a_round_trip(
    layout: str, save_model: SaveModel, onnx_export: OnnxExport, tmp_path: Path
) -> None:
    config = replace(TINY_VIT, vision_mlp_width=100, transformer_mlp_width=37)
    if layout == "onnx":
        made = onnx_export(OTHER_MLPS, torch.float32)
    else:
        made = exported(save_model(config, torch.float32).model, layout, tmp_path)
    back = export(made.folder, tmp_path / "back", "hfclip")
    for name in ("model.safetensors", "config.json"):
        assert sha256(back / name) == sha256(made.source / name)
    for folder in (made.folder, back):
        assert "64 with MLPs of width 37, 1 attention" in (folder / "README.md").read_text()


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
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r"pip install 'hfclip\[onnx\]'"):
        export(saved_vit.archive, tmp_path / "out", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_graphs_are_small_and_contain_no_local_paths(
    save_model: SaveModel, onnx_export: OnnxExport, tmp_path: Path
) -> None:
    one = onnx_export(VIT, torch.float32).folder
    two = export(save_model(VIT, torch.float32).archive, tmp_path / "two", "onnx")
    for name in ("image.onnx", "text.onnx"):
        graph = (one / name).read_bytes()
        assert graph == (two / name).read_bytes()
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
