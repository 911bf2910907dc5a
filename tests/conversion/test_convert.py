"""Conversion of OpenAI's archives to published folders, and its verification."""

import hashlib
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import TINY_RESNET, TINY_VIT, SavedModel
from drawing import quickly_drawn
from huggingface_hub import close_session
from loopback.faults import Status
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from safetensors.torch import load_file, save_file
from torch import Tensor

import hfclip
from conversion import check as checking
from conversion import convert as conversion
from conversion import publish as publication
from conversion.__main__ import main
from conversion.check import check
from conversion.convert import convert
from conversion.oracle import fixed_batch
from hfclip import CLIP, __version__
from hfclip.config import ClipConfig
from hfclip.errors import CheckpointError, ConfigError, IntegrityError
from hfclip.network.clip import convert_weights
from hfclip.network.scripted import script
from hfclip.releases import RELEASES, Original, Release

FULL_SIZE = ("RN50", "ViT-B/32")
TOKEN = "hf_secretOfTheTests"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def drawn(config: ClipConfig) -> CLIP:
    """Returns a model without trivial norms, biases or BatchNorm statistics."""
    model = quickly_drawn(lambda: CLIP(**config.to_dict()))
    random = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if not tensor.is_floating_point():
            tensor.fill_(7)
        elif tensor.ndim < 2:
            tensor.add_(torch.rand(tensor.shape, generator=random), alpha=0.02)
    return model


def archive(config: ClipConfig, path: Path) -> Path:
    """Writes a traced TorchScript archive like OpenAI's, with weights in mixed float16.

    It traces in float32, because float16 convolutions take minutes on a CPU. The small archives
    of the other tests cover the constants of a float16 trace.
    """
    model = drawn(config)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        traced = script(model)
        convert_weights(model, torch.float16)  # the trace has the same tensors
        torch.jit.save(traced, path)
    return path


def shallow(config: ClipConfig) -> ClipConfig:
    """Returns a configuration with the same widths and sizes, but fewer layers and words."""
    layers = (1, 1, 1, 1) if config.is_resnet else 1
    return replace(config, vision_layers=layers, transformer_layers=1, vocab_size=600)


@pytest.fixture
def quick_oracle(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the process that runs an archive's code start without the import of torch."""
    monkeypatch.setattr(sys, "executable", str(python))


def one_image(config: ClipConfig) -> tuple[Tensor, Tensor]:
    """Returns the first image and the texts of a check: more images of a large model take long."""
    images, texts = fixed_batch(config)
    return images[:1], texts


@pytest.mark.usefixtures("quick_oracle")
@pytest.mark.parametrize("name", RELEASES)
def test_an_archive_of_each_release_is_converted_exactly(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RELEASES[name].config
    if name not in FULL_SIZE:
        monkeypatch.setattr(checking, "fixed_batch", one_image)
    file = archive(config if name in FULL_SIZE else shallow(config), tmp_path / "like.pt")
    done = convert(file, tmp_path / "out")
    findings = check(tmp_path / "out", file, run_torchscript=True)
    assert [finding.what for finding in findings] == ["names", "bits", "configuration", "logits"]
    assert all(finding.passed for finding in findings), findings
    model, _ = hfclip.load(tmp_path / "out", "cpu", dtype=torch.float16)
    assert len(model.state_dict()) == done.tensors
    assert model.config.image_resolution == config.image_resolution
    file.unlink()
    (tmp_path / "out" / "model.safetensors").unlink()


@pytest.fixture
def converted(saved_model: SavedModel, tmp_path: Path) -> Path:
    convert(saved_model.archive, tmp_path / "out")
    return tmp_path / "out"


def test_the_same_file_gives_the_same_bytes(saved_model: SavedModel, tmp_path: Path) -> None:
    for name in ("one", "two"):
        convert(saved_model.archive, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_state_dict_and_its_archive_convert_to_the_same_weights(
    saved_model: SavedModel, converted: Path, tmp_path: Path
) -> None:
    convert(saved_model.state_dict, tmp_path / "other")
    weights = (converted / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "other" / "model.safetensors").read_bytes()
    assert (converted / "config.json").read_bytes() == (
        tmp_path / "other" / "config.json"
    ).read_bytes()


def test_the_card_names_the_source_of_the_weights(saved_vit: SavedModel, tmp_path: Path) -> None:
    convert(saved_vit.archive, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    source = hashlib.sha256(saved_vit.archive.read_bytes()).hexdigest()
    weights = hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest()
    assert f"| its sha256 | `{source}` |" in card
    assert f"`{weights}` |" in card
    assert f"| tensors | {len(saved_vit.model.state_dict())}, bit for bit" in card
    assert f"hfclip {__version__}" in card


def spoil(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: change(tensors[name])}, folder / "model.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda tensor: -tensor, id="sign"),
        pytest.param(lambda tensor: tensor.double(), id="type"),
        pytest.param(lambda tensor: tensor.nextafter(tensor + 1), id="last bit"),
    ],
)
def test_the_check_detects_a_single_difference(
    change: Callable[[torch.Tensor], torch.Tensor], saved_vit: SavedModel, tmp_path: Path
) -> None:
    convert(saved_vit.archive, tmp_path / "out")
    spoil(tmp_path / "out", "visual.ln_pre.bias", change)
    findings = {finding.what: finding for finding in check(tmp_path / "out", saved_vit.archive)}
    assert findings["names"].passed
    assert not findings["bits"].passed
    assert "visual.ln_pre.bias" in findings["bits"].detail
    result = run("check", tmp_path / "out", "--against", saved_vit.archive)
    assert result.exit_code == 1
    assert "DIFFERENT" in result.output


def test_the_check_detects_a_zero_with_another_sign(saved_vit: SavedModel, tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in saved_vit.model.state_dict().items()}
    tensors["visual.ln_pre.bias"][0] = 0.0
    torch.save(tensors, tmp_path / "source.pt")
    convert(tmp_path / "source.pt", tmp_path / "out")
    assert all(finding.passed for finding in check(tmp_path / "out", tmp_path / "source.pt"))

    def negative_zero(tensor: torch.Tensor) -> torch.Tensor:
        tensor[0] = -0.0
        return tensor

    spoil(tmp_path / "out", "visual.ln_pre.bias", negative_zero)
    assert not all(finding.passed for finding in check(tmp_path / "out", tmp_path / "source.pt"))


@pytest.mark.usefixtures("quick_oracle")
def test_the_reference_is_independent_of_hfclips_model(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    """The weights are identical, but the configuration gives other features."""
    convert(saved_vit.archive, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps({**config, "activation": "gelu"}))
    findings = check(tmp_path / "out", saved_vit.archive, run_torchscript=True)
    passed = {finding.what: finding.passed for finding in findings}
    assert passed == {"names": True, "bits": True, "configuration": False, "logits": False}


def test_code_of_an_archive_runs_only_on_request(
    saved_vit: SavedModel, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the archive's code would have run")

    monkeypatch.setattr("subprocess.run", never)
    monkeypatch.setattr(torch.jit, "load", never)
    result = run("check", converted, "--against", saved_vit.archive)
    assert "not computed: --run-torchscript runs the archive's own code" in result.output


def test_a_damaged_original_is_refused_before_it_is_read(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    file = tmp_path / "ViT-B-32.pt"
    file.write_bytes(saved_vit.archive.read_bytes())
    with pytest.raises(IntegrityError, match="give it another name") as caught:
        convert(file, tmp_path / "out")
    assert RELEASES["ViT-B/32"].original.sha256 in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_failed_conversion_leaves_no_files(saved_vit: SavedModel, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(saved_vit.archive.read_bytes()[:-1000])
    with pytest.raises(CheckpointError):
        convert(cut, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.pt"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"already holds notes\.txt"):
        convert(saved_vit.archive, tmp_path / "out")


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ClipConfig, Path]]:
    """Returns the names of two releases, each with a small configuration and an archive of it."""
    folder = tmp_path_factory.mktemp("originals")
    return {
        name: (config, archive(config, folder / RELEASES[name].original.file))
        for name, config in (("ViT-B/32", TINY_VIT), ("RN50", TINY_RESNET))
    }


@pytest.fixture
def two_releases(
    originals: dict[str, tuple[ClipConfig, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Release]:
    """A table of two small releases whose original files are in the folder of `clip`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "home" / ".cache" / "clip"
    root.mkdir(parents=True)
    table = {}
    for name, (config, source) in originals.items():
        file = Path(shutil.copy(source, root))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        original = Original(file.name, file.stat().st_size, digest)
        table[name] = replace(RELEASES[name], config=config, original=original)
    for module in (conversion, publication):
        monkeypatch.setattr(module, "RELEASES", table)
    return table


def test_all_converts_every_release_and_keeps_finished_folders(
    two_releases: dict[str, Release], tmp_path: Path
) -> None:
    first = run("convert", "--all", tmp_path / "out")
    assert first.exit_code == 0, first.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["RN50", "ViT-B-32"]
    assert len(first.output.splitlines()) == 2
    card = (tmp_path / "out" / "ViT-B-32" / "README.md").read_text()
    assert "# CLIP ViT-B/32" in card
    assert "Origin of this copy" in card
    weights = tmp_path / "out" / "RN50" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    second = run("convert", "--all", tmp_path / "out")
    assert second.output.count("already converted") == 2
    assert weights.stat().st_mtime_ns == before


def test_a_failed_release_is_reported_and_the_others_are_converted(
    two_releases: dict[str, Release], tmp_path: Path
) -> None:
    file = tmp_path / "home" / ".cache" / "clip" / "RN50.pt"
    (tmp_path / "RN50.pt").write_bytes(file.read_bytes()[:-1])
    good = tmp_path / "home" / ".cache" / "clip" / "ViT-B-32.pt"
    result = run("convert", good, tmp_path / "RN50.pt", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 of 2 were not converted" in result.output
    assert (tmp_path / "out" / "ViT-B-32" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / "RN50").exists()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.add_account("me", TOKEN)
        yield hub
    close_session()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # a warning of the client
def test_all_releases_are_published_tagged_and_load_by_their_names(
    two_releases: dict[str, Release],
    hub: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run("convert", "--all", tmp_path / "out")
    trial = run("publish", "--all", tmp_path / "out", "--namespace", "me", "--dry-run")
    assert trial.output.count("would send README.md") == 2
    assert not [call for call in hub.calls if call.method not in {"GET", "HEAD"}]
    # A second run continues after a failure.
    hub.fault(Status(403), "/api/models/me/ViT-B-32/commit/*", method="POST", times=2)
    first = run("publish", "--all", tmp_path / "out", "--namespace", "me")
    assert first.exit_code == 1
    assert "me/ViT-B-32  failed" in first.output
    hub.forget_faults()
    hub.forget_calls()
    second = run("publish", "--all", tmp_path / "out", "--namespace", "me")
    assert second.exit_code == 0, second.output
    assert "me/RN50  nothing new" in second.output
    assert not [call for call in hub.calls if call.method == "PUT"]
    for name, release in two_releases.items():
        model, _ = hfclip.load(name, "cpu", namespace="me")
        assert model.config == release.config
        repository = hub.repository(f"me/{name.replace('/', '-')}")
        assert repository.tags[f"v{__version__}"].id == repository.branches["main"].id


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # a warning of the client
def test_the_card_of_a_copy_names_its_own_repository(
    two_releases: dict[str, Release], saved_vit: SavedModel, hub: LoopbackHub, tmp_path: Path
) -> None:
    run("convert", "--all", tmp_path / "out")
    run("convert", saved_vit.archive, tmp_path / "out" / "mine")
    for name in ("ViT-B-32", "mine"):
        folder = tmp_path / "out" / name
        card = (folder / "README.md").read_text()
        assert 'hfclip.load(".", device=device)' in card
        assert str(tmp_path) not in card
        assert "path/to" not in card
        before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
        result = run("publish", folder, "--namespace", "me")
        assert result.exit_code == 0, result.output
        commit = hub.repository(f"me/{name}").find("main")
        assert commit is not None
        published = commit.files["README.md"].content.read().decode()
        assert f'hfclip.load("me/{name}", device=device)' in published
        assert 'load(".")' not in published
        assert "the folder that holds this file" not in published
        assert "bit for bit, in the dtypes of the source" in published
        assert (
            published.count(hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())
            == 1
        )
        assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before
        hub.forget_calls()
        assert "nothing new" in run("publish", folder, "--namespace", "me").output


def test_a_handwritten_card_survives_a_forced_conversion(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    convert(saved_vit.archive, tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("# Mine\n")
    convert(saved_vit.archive, tmp_path / "out", force=True)
    assert (tmp_path / "out" / "README.md").read_text() == "# Mine\n"


def test_changed_weights_are_not_called_openais(
    two_releases: dict[str, Release], tmp_path: Path
) -> None:
    run("convert", "--all", tmp_path / "out")
    folder = tmp_path / "out" / "ViT-B-32"
    model, _ = hfclip.load(folder, "cpu", dtype=torch.float16)
    model.save_pretrained(folder)
    assert "# CLIP ViT-B/32" in (folder / "README.md").read_text()
    with torch.no_grad():
        model.text_projection[0, 0] += 1
    model.save_pretrained(folder)
    card = (folder / "README.md").read_text()
    assert "# CLIP ViT-B/32" not in card
    assert "license: mit" in card
    assert f"Made from [{two_releases['ViT-B/32'].hub.repo_id}]" in card


WRONG = {
    "nosuch.pt": ("nosuch.pt does not exist: it is neither a file nor one of the nine names",),
    "ViT-B-32": ("ViT-B-32 does not exist", "Did you mean 'ViT-B/32'?"),
    "folder": ("folder is a folder", "hfclip export folder FOLDER --layout hfclip"),
    "digits": ("digits is a model inside the package", "hfclip export digits"),
    "notes.txt": ("notes.txt begins with b'hello': it is neither a safetensors file",),
    "empty.pt": ("empty.pt is empty",),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_error_describes_the_file_that_cannot_be_converted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("notes.txt").write_text("hello")
    Path("empty.pt").touch()
    result = run("convert", name, "out")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    for words in WRONG[name]:
        assert words in result.output
    assert not Path("out").exists()


def test_convert_with_one_argument_asks_for_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.pt").touch()
    for name in ("nosuch.pt", "there.pt", "digits"):
        result = run("convert", name)
        assert result.exit_code == 2
        assert f"Only '{name}' is given, and it is read as OUT" in result.output
    assert "With --all, give only OUT" in run("convert", "--all", "there.pt", "out").output


def test_a_file_in_place_of_the_folder_is_reported(saved_vit: SavedModel, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    assert "out is a file" in run("convert", saved_vit.archive, tmp_path / "out").output
    several = run("convert", saved_vit.archive, saved_vit.state_dict, tmp_path / "out")
    assert isinstance(several.exception, SystemExit)
    assert "2 of 2 were not converted" in several.output


def test_publish_all_requires_every_release(tmp_path: Path) -> None:
    (tmp_path / "out" / "RN50").mkdir(parents=True)
    result = run("publish", "--all", tmp_path / "out", "--namespace", "me")
    assert result.exit_code == 1
    assert "lacks RN101, RN50x4" in result.output
    assert "python -m conversion convert --all" in result.output
