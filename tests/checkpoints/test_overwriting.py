"""Weight files that are overwritten by the trainer or another program.

A process dies with SIGBUS if a mapped file is shortened, so the cases run in a separate process:
`python tests/checkpoints/test_overwriting.py FUNCTION FOLDER`. It prints each kind of file before
it tests it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

import pytest
import torch
from conftest import TINY_VIT, SavedModel, draw
from huggingface_hub import close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from safetensors.torch import load_file, save_file
from torch import Tensor

import hfclip
from hfclip.checkpoints import archive
from hfclip.checkpoints import read as checkpoint
from hfclip.checkpoints.assembly import detect_kind
from hfclip.checkpoints.read import read_checkpoint
from hfclip.compat import clip as compat
from hfclip.errors import CheckpointError
from hfclip.hub.fetch import Access
from hfclip.layouts.files import Source
from hfclip.model import CLIP
from hfclip.publishing.finetune import read_finetune
from hfclip.sources.find import find

# Three times with each loader.
TIMES = 12


def _save_legacy(model: CLIP, path: Path) -> None:
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


# Functions of a trainer that overwrite each kind of loaded file.
SAVERS: dict[str, Callable[[CLIP, Path], object]] = {
    "state_dict.pt": lambda model, path: torch.save(model.state_dict(), path),
    "legacy.pt": _save_legacy,
    "archive.pt": lambda model, path: torch.save(model.state_dict(), path),
    "model.safetensors": lambda model, path: save_file(model.state_dict(), path),
    "folder": lambda model, path: model.save_pretrained(path),
}
LOADERS: dict[str, Callable[[Path, Path], CLIP]] = {
    "load": lambda path, _: hfclip.load(path, device="cpu")[0],
    "from_pretrained": lambda path, _: CLIP.from_pretrained(path),
    "compat": lambda path, _: compat.load(str(path), device="cpu")[0],
    "publish": lambda path, base: CLIP.from_checkpoint(read_finetune(path, str(base))),
}


def values(model: CLIP) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def read_back(path: Path) -> dict[str, Tensor]:
    """Returns the tensors that other programs read from a file or folder."""
    if path.is_dir() or path.suffix == ".safetensors":
        return load_file(path / "model.safetensors" if path.is_dir() else path)
    tensors: dict[str, Tensor] = torch.load(path, weights_only=True)
    return tensors


def train_and_save_over(kind: str, folder: Path) -> None:
    path, original = folder / kind, folder / "original"
    for turn in range(TIMES):
        if kind == "archive.pt":  # training replaces it with a state dict
            shutil.copyfile(original, path)
        load = list(LOADERS.values())[turn % len(LOADERS)]
        model = load(path, folder / "base")
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, turn + 3 - number % 3)
        before = values(model)
        optimizer.step()
        assert not torch.equal(before["visual.proj"], model.state_dict()["visual.proj"])
        SAVERS[kind](model, path)
        assert_equal(read_back(path), values(model))
        assert_equal(values(LOADERS["load"](path, folder / "base")), values(model))


def spoil_after_loading(kind: str, folder: Path) -> None:
    path, expected = folder / kind, values(draw(TINY_VIT))
    weights = path / "model.safetensors" if path.is_dir() else path
    whole = weights.read_bytes()
    spoiled = (b"", whole[:100], bytes(len(whole)), b"\xff" * (len(whole) + 4096))
    for load in LOADERS.values():
        for content in spoiled:
            weights.write_bytes(whole)
            model = load(path, folder / "base")
            inode = weights.stat().st_ino
            weights.write_bytes(content)
            assert weights.stat().st_ino == inode  # the same file, not a new one with its name
            assert_equal(values(model), expected)
            features = model.encode_text(torch.tensor([[3, 1, 599, *[0] * 13]]))
            assert features.isfinite().all()


@pytest.mark.parametrize("function", [train_and_save_over, spoil_after_loading])
def test_a_model_keeps_its_values_when_its_file_is_overwritten(
    function: Callable[[str, Path], None], saved_vit: SavedModel, tmp_path: Path, python: Path
) -> None:
    for kind in SAVERS:
        folder = tmp_path / kind
        saved_vit.model.save_pretrained(folder / "base")
        if kind == "folder":
            saved_vit.model.save_pretrained(folder / kind)
        else:
            shutil.copyfile(saved_vit.file(kind), folder / kind)
            shutil.copyfile(folder / kind, folder / "original")
    child = subprocess.run(
        [python, __file__, function.__name__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (child.returncode, child.stderr[-2_000:]) == (0, ""), child.stdout
    assert child.stdout.split() == list(SAVERS)


def is_mapped(tensor: Tensor, name: str) -> bool:
    """Returns whether the memory of a tensor is a mapping of the file."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not tell what is mapped")
    start = tensor.untyped_storage().data_ptr()
    for line in maps.read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= start < high:
            return line.endswith(name)
    return False


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        yield hub
    close_session()


def test_only_the_hubs_cache_and_the_bundled_model_stay_mapped(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    draw(TINY_VIT).save_pretrained(tmp_path / "mine")
    names = ("config.json", "model.safetensors")
    hub.add_repository("me/clip", {name: tmp_path / "mine" / name for name in names})
    cached = find("me/clip", Access())
    bundled = find("digits")
    for source in (cached, bundled):
        tensor = read_checkpoint(source).tensors["visual.proj"]
        assert is_mapped(tensor, source.weights.resolve().name), source
    for mine in (tmp_path / "mine", tmp_path / "mine" / "model.safetensors", cached.weights):
        tensor = read_checkpoint(find(mine)).tensors["visual.proj"]
        assert not is_mapped(tensor, "model.safetensors"), mine
        assert not is_mapped(tensor, cached.weights.resolve().name), mine


def test_a_file_shortened_during_the_read_is_refused(saved_vit: SavedModel, tmp_path: Path) -> None:
    for source in (saved_vit.state_dict, saved_vit.legacy):
        path = tmp_path / source.name
        shutil.copyfile(source, path)
        read = archive.read_legacy if source == saved_vit.legacy else archive.read_zip
        saved = read(path)
        path.write_bytes(path.read_bytes()[:4_000])
        with pytest.raises(
            CheckpointError, match="ends before the last byte of its tensors"
        ) as told:
            saved.tensors(saved.content)
        assert str(path) in str(told.value)


@pytest.mark.parametrize("kind", ["state_dict.pt", "legacy.pt", "archive.pt", "model.safetensors"])
def test_a_file_written_during_the_read_is_refused(
    kind: str, saved_vit: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / kind
    shutil.copyfile(saved_vit.file(kind), path)
    reader = dict(checkpoint._READERS)

    def interrupted(read_path: Path, mapped: bool) -> object:
        content = reader[form](read_path, mapped)
        path.write_bytes(path.read_bytes() + b"x")
        return content

    form = detect_kind(path)
    monkeypatch.setitem(checkpoint._READERS, form, interrupted)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        read_checkpoint(Source(path, None, "a test"))


def test_each_used_storage_is_read_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = torch.arange(1000.0)
    content = {
        "state_dict": {"first": shared[:10], "second": shared[10:30], "own": torch.ones(7)},
        "optimizer": {"state": torch.ones(5000)},
    }
    read = archive._read
    sizes: list[int] = []

    def noted(file: BufferedReader, place: archive._Place, path: Path) -> Tensor:
        sizes.append(place.size)
        return read(file, place, path)

    monkeypatch.setattr(archive, "_read", noted)
    for legacy in (False, True):
        torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
        saved = (archive.read_legacy if legacy else archive.read_zip)(tmp_path / "a.pt")
        tensors = saved.tensors(saved.content["state_dict"])
        assert sizes == [4000, 28]
        assert torch.equal(tensors["second"], shared[10:30])
        sizes.clear()


if __name__ == "__main__":
    chosen, its_folder = sys.argv[1:]
    for its_kind in SAVERS:
        sys.stdout.write(f"{its_kind}\n")
        sys.stdout.flush()
        globals()[chosen](its_kind, Path(its_folder) / its_kind)
