"""Fixtures: small models, and each kind of file that can contain one."""

import functools
import gc
import os
import signal
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from exported import Export, exported, shared_by_processes
from forks import forking_python
from logged import log  # noqa: F401
from places import Place, forget_memory
from remote_places import bucket, hub_home, memory, remote, s3, s3_server  # noqa: F401
from safetensors.torch import save_file
from workers import VARIABLE

from hfclip.config import ClipConfig
from hfclip.model import CLIP
from hfclip.network.clip import convert_weights
from hfclip.network.scripted import script

# Files of long tests, the longest first.
LONG = (
    "training/test_kill.py",
    "training/test_emoji.py",
    "publishing/test_whole_way.py",
    "training/test_digits.py",
    "test_documents.py",
    "conversion/test_convert.py",
    "embedding/test_kill.py",
    "publishing/test_finetuned.py",
    "peers/test_exports.py",
    "publishing/test_export.py",
    "hub/test_fetch.py",
)


# Modules and tests live until the end: looking for garbage among them takes seconds.
gc.disable()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leaves what the collection of tests makes out of later collections of garbage."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs long tests first, so that none of them keeps a single process busy at the end."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(scope="module")
def little_to_collect() -> None:
    """Makes the collections of garbage of a module cheap: they skip what lives before it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def usual_interrupts() -> Iterator[None]:
    """Handles SIGINT as Python does, even if the shell that runs the tests ignores it."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


# Sizes that follow OpenAI's rules (heads of width 64), so that bare weights determine the model.
TINY_VIT = ClipConfig(64, 32, 2, 64, 16, 16, 600, 64, 1, 2)
TINY_RESNET = ClipConfig(32, 64, (1, 2, 1, 1), 4, None, 12, 600, 64, 1, 1)


@dataclass(frozen=True)
class SavedModel:
    """A model and its files, each written on first use.

    Tests share both, so they must not change them.
    """

    model: CLIP
    folder: Path

    @cached_property
    def safetensors(self) -> Path:
        path = self.folder / "model.safetensors"
        save_file(self.model.state_dict(), path)
        return path

    @cached_property
    def state_dict(self) -> Path:
        path = self.folder / "state_dict.pt"
        torch.save(self.model.state_dict(), path)
        return path

    @cached_property
    def legacy(self) -> Path:
        """The format of torch before 1.6, which is no zip file."""
        path = self.folder / "legacy.pt"
        torch.save(self.model.state_dict(), path, _use_new_zipfile_serialization=False)
        return path

    @cached_property
    def archive(self) -> Path:
        """A TorchScript archive, as OpenAI's."""
        path = self.folder / "archive.pt"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch deprecates TorchScript
            torch.jit.save(script(self.model), path)
        return path

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns all files, safetensors first."""
        return self.safetensors, self.state_dict, self.legacy, self.archive

    def file(self, name: str) -> Path:
        """Returns one of the files by its name, such as archive.pt."""
        return next(path for path in self.files if path.name == name)


@pytest.fixture(scope="session")
def tiny_vit() -> ClipConfig:
    return TINY_VIT


@pytest.fixture(scope="session")
def tiny_resnet() -> ClipConfig:
    return TINY_RESNET


@pytest.fixture(scope="session")
def save_model(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[ClipConfig, torch.dtype], SavedModel]:
    """Draws a seeded model of a configuration and dtype, which is saved in each kind of file."""

    @functools.cache
    def save(config: ClipConfig, dtype: torch.dtype) -> SavedModel:
        return SavedModel(draw(config, dtype), tmp_path_factory.mktemp("model"))

    return save


@pytest.fixture(scope="session")
def saved_vit(save_model: Callable[[ClipConfig, torch.dtype], SavedModel]) -> SavedModel:
    return save_model(TINY_VIT, torch.float32)


@pytest.fixture(scope="session")
def saved_resnet(save_model: Callable[[ClipConfig, torch.dtype], SavedModel]) -> SavedModel:
    return save_model(TINY_RESNET, torch.float32)


@pytest.fixture(
    scope="session",
    params=[
        pytest.param((TINY_VIT, torch.float32), id="vit"),
        pytest.param((TINY_VIT, torch.float16), id="vit-half"),
        pytest.param((TINY_RESNET, torch.float32), id="resnet"),
        pytest.param((TINY_RESNET, torch.float16), id="resnet-half"),
    ],
)
def saved_model(
    request: pytest.FixtureRequest,
    save_model: Callable[[ClipConfig, torch.dtype], SavedModel],
) -> SavedModel:
    """Returns each architecture in float32 and in the mixed float16 of OpenAI's releases."""
    return save_model(*request.param)


@pytest.fixture(scope="session")
def onnx_export(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[ClipConfig, torch.dtype], Export]:
    """Returns a function that draws a model and exports it, once for each configuration."""

    @functools.cache
    def made(config: ClipConfig, dtype: torch.dtype) -> Export:
        return exported(tmp_path_factory.mktemp("onnx"), draw(config, dtype))

    return made


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Returns a command that runs programs as `python` does, but as forks; see tests/forks.py."""
    shared = shared_by_processes(tmp_path_factory.getbasetemp())
    folder = Path(os.environ.get(VARIABLE, shared / "forks"))
    with forking_python(folder) as command:
        yield command


def draw(config: ClipConfig, dtype: torch.dtype = torch.float32) -> CLIP:
    """Returns a model in eval mode without zero biases or default BatchNorm statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(**config.to_dict()).eval()
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor), alpha=0.02)
            else:
                tensor.fill_(7)
    convert_weights(model, dtype)
    return model


@pytest.fixture(params=["local", "memory"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """Runs a test in a temporary folder, and in fsspec's file system in memory."""
    monkeypatch.chdir(tmp_path)
    yield Place(request.param, tmp_path)
    forget_memory()
