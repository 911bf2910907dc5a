"""Malicious weights as pytorch_model.bin, in a folder and in a repository: nothing runs."""

import copyreg
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import malicious
import pytest
from conftest import TINY_VIT
from huggingface_hub import close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from malicious import Described, Storage

import hfclip
from hfclip.layouts.open_clip import config_to_open_clip
from hfclip.layouts.transformers import config_to_transformers
from hfclip.sources.inspect import list_models

PLACES = {
    "pytorch_model.bin": ("config.json", config_to_transformers(TINY_VIT)[0]),
    "pytorch_model.fp16.bin": ("config.json", TINY_VIT.to_dict()),
    "open_clip_pytorch_model.bin": ("open_clip_config.json", config_to_open_clip(TINY_VIT)),
    "model.safetensors": ("config.json", TINY_VIT.to_dict()),
    "shard.bin": ("config.json", TINY_VIT.to_dict()),
}
BYTES = bytes(16)
KINDS: dict[str, Callable[[Path, bytes], Path]] = {
    "archive": malicious.write_archive,
    "state dict": malicious.write_state_dict,
    "legacy": malicious.write_legacy,
    "legacy, where the system is described": (
        lambda path, pickled: malicious.write_legacy(path, b"", system=pickled)
    ),
    "legacy, where the keys are listed": (
        lambda path, pickled: malicious.write_legacy(path, malicious.program(b"}"), tail=pickled)
    ),
    "plain pickle": malicious.write,
}
OTHERS: dict[str, Callable[[], bytes]] = {
    "exponential key": malicious.exponential_key,
    "deep key": malicious.deep_key,
    "far memo": malicious.far_memo,
    "wrapper in itself": malicious.wrapper_in_itself,
    "module in itself": malicious.module_in_itself,
    "exponential modules": malicious.exponential_modules,
    "colliding keys": lambda: malicious.colliding_keys(2000),
    "copies": lambda: malicious.repeated_copies(b"h\x01h\x00R", 1000, 1000),
    "past its storage": lambda: malicious.described({"w": Described(Storage(), shape=(2**40,))}),
    "a missing storage": lambda: malicious.described({"w": Described(Storage(key="../../x"))}),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        yield hub
    close_session()


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Returns a file that a command would create, and registers the code for os.system."""
    copyreg.add_extension("os", "system", malicious.EXTENSION)
    yield tmp_path / "it-ran"
    copyreg.remove_extension("os", "system", malicious.EXTENSION)


def model_with(folder: Path, name: str, write: Callable[[Path], Path]) -> dict[str, Any]:
    """Writes a folder with an attack as its weights, and returns the options that load it."""
    folder.mkdir()
    config, values = PLACES[name]
    (folder / config).write_text(json.dumps(values))
    write(folder / name)
    if name == "shard.bin":
        index = {"weight_map": {"w": name}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return {"variant": "fp16" if "fp16" in name else None}


READERS: list[Callable[..., object]] = [
    lambda place, **options: hfclip.load(place, "cpu", **options),
    hfclip.CLIP.from_pretrained,
    hfclip.inspect,
]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_attack_is_refused_in_every_place_before_it_runs(
    kind: str, name: str, hub: LoopbackHub, tmp_path: Path, marker: Path
) -> None:
    for number, pickled in enumerate(malicious.system_calls(f"touch '{marker}'").values()):
        folder = tmp_path / str(number)
        options = model_with(folder, name, lambda path, code=pickled: KINDS[kind](path, code))  # type: ignore[misc]
        hub.add_repository(f"me/{number}", {path.name: path for path in folder.iterdir()})
        for place in (folder, f"me/{number}"):
            for read in READERS:
                with pytest.raises(hfclip.UnsafeCheckpointError, match="nothing was run"):
                    read(place, **options)
                assert not marker.exists()
        with pytest.raises(hfclip.UnsafeCheckpointError):
            hfclip.export(folder, tmp_path / "out", "hfclip", **options)
        hfclip.download(f"me/{number}", **options)
        hfclip.verify(f"me/{number}", **options)
        assert not marker.exists()
    list_models()
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["archive", "state dict", "legacy"])
@pytest.mark.parametrize("case", OTHERS)
def test_a_file_that_would_hang_or_read_elsewhere_is_refused(
    case: str, kind: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    model_with(tmp_path / "a", "pytorch_model.bin", lambda path: KINDS[kind](path, OTHERS[case]()))
    hub.add_repository("me/a", {path.name: path for path in (tmp_path / "a").iterdir()})
    for place in (tmp_path / "a", "me/a"):
        with pytest.raises(hfclip.CheckpointError, match=r"pytorch_model\.bin"):
            hfclip.load(place, "cpu")
