import dataclasses
import gc
import json
import signal
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import malicious
import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT, SavedModel
from drawing import without_memory
from malicious import Described, Storage
from safetensors.torch import save_file
from torch import Tensor

from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.checkpoints.shapes import infer_config
from hfclip.config import ClipConfig
from hfclip.errors import (
    CheckpointError,
    ConfigError,
    UnsafeCheckpointError,
    WeightsMismatchError,
)
from hfclip.layouts.files import Source
from hfclip.model import CLIP
from hfclip.releases import RELEASES

pytestmark = pytest.mark.usefixtures("little_to_collect")

KINDS = {
    "model.safetensors": "safetensors file",
    "state_dict.pt": "PyTorch state dict",
    "legacy.pt": "legacy PyTorch state dict",
    "archive.pt": "TorchScript archive",
}


def read(path: Path, config: Path | None = None) -> Checkpoint:
    known = ClipConfig.from_json(config) if config else None
    return read_checkpoint(Source(path, known, "a test"))


def build(path: Path, config: Path | None = None) -> CLIP:
    return CLIP.from_checkpoint(read(path, config))


def write_config(folder: Path, config: ClipConfig) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    return path


def assert_same_to_the_bit(model: CLIP, expected: CLIP) -> None:
    weights = model.state_dict()
    assert list(weights) == list(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert weights[name].dtype == tensor.dtype, name
        assert torch.equal(weights[name], tensor), name


def test_every_kind_of_file_gives_identical_weights(saved_model: SavedModel) -> None:
    for path in saved_model.files:
        checkpoint = read(path)
        assert checkpoint.format == KINDS[path.name]
        assert checkpoint.config == saved_model.model.config
        assert_same_to_the_bit(CLIP.from_checkpoint(checkpoint), saved_model.model)


def test_every_kind_of_file_gives_identical_features(saved_vit: SavedModel) -> None:
    config = saved_vit.model.config
    image = torch.linspace(-1, 1, 3 * config.image_resolution**2).reshape(1, 3, 32, 32)
    text = torch.arange(config.context_length).reshape(1, -1)
    with torch.no_grad():
        expected = saved_vit.model(image, text)[0]
        for path in saved_vit.files:
            assert torch.equal(build(path)(image, text)[0], expected), path.name


def test_the_kind_of_a_file_is_detected_by_its_bytes_and_not_its_name(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    for path in saved_vit.files:
        for name in ("weights.safetensors", "weights.pt", "weights"):
            disguised = tmp_path / name
            disguised.write_bytes(path.read_bytes())
            assert read(disguised).format == KINDS[path.name]


def test_an_ordinary_read_gives_no_warning(saved_vit: SavedModel) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in saved_vit.files:
            build(path)
        gc.collect()  # files that were left open give warnings here
    assert [str(warning.message) for warning in caught] == []


def test_writing_to_a_model_leaves_its_file_unchanged(saved_model: SavedModel) -> None:
    before = {path: path.read_bytes() for path in saved_model.files}
    for path in saved_model.files:
        model = build(path)
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.fill_(3)
        assert model.logit_scale.item() == 3
        del model
    gc.collect()
    for path in saved_model.files:
        assert path.read_bytes() == before[path], path.name
        assert_same_to_the_bit(build(path), saved_model.model)


@pytest.mark.usefixtures("usual_interrupts")
def test_an_interrupt_that_torch_would_lose_is_not_taken_for_damage(
    saved_vit: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = torch.UntypedStorage.__getitem__

    def get_interrupted(storage: torch.UntypedStorage, index: int | slice) -> object:
        if isinstance(index, int):  # called by torch.asarray, which replaces each exception
            signal.raise_signal(signal.SIGINT)
        return get(storage, index)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(torch.UntypedStorage, "__getitem__", get_interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_checkpoint(Source(saved_vit.safetensors, None, "a test", mapped=True))


@pytest.mark.parametrize("mapped", [True, False])
def test_weights_are_mapped_only_if_their_source_allows_it(
    mapped: bool, saved_vit: SavedModel
) -> None:
    maps = Path("/proc/self/maps")
    for path in saved_vit.files:
        source = Source(path, None, "a test", mapped=mapped)
        first, second = (read_checkpoint(source).tensors["visual.conv1.weight"] for _ in range(2))
        assert first.data_ptr() != second.data_ptr()
        start = first.untyped_storage().data_ptr()
        if maps.exists():
            found = any(
                line.endswith(path.name) and low <= start < high
                for line in maps.read_text().splitlines()
                for low, high in [[int(end, 16) for end in line.split()[0].split("-")]]
            )
            assert found is (mapped and path == saved_vit.safetensors), path.name


def prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "module.model.", "model.module.", "module.module."]
)
@pytest.mark.parametrize(
    "wrappers",
    [(), ("state_dict",), ("model",), ("model", "state_dict"), ("state_dict", "model")],
    ids="-".join,
)
def test_wrappers_and_prefixes_are_removed(
    wrappers: tuple[str, ...], prefix: str, saved_vit: SavedModel, tmp_path: Path
) -> None:
    content: dict[str, object] = {**prefixed(saved_vit.model.state_dict(), prefix)}
    for wrapper in wrappers:
        content = {wrapper: content, "epoch": 3, "optimizer": {"step": torch.tensor(1)}}
    torch.save(content, tmp_path / "a.pt")
    assert_same_to_the_bit(build(tmp_path / "a.pt"), saved_vit.model)


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_prefixes_are_removed_in_safetensors_too(
    prefix: str, saved_vit: SavedModel, tmp_path: Path
) -> None:
    save_file(prefixed(saved_vit.model.state_dict(), prefix), tmp_path / "a.safetensors")
    assert_same_to_the_bit(build(tmp_path / "a.safetensors"), saved_vit.model)


def test_the_extra_numbers_of_openais_archives_are_not_weights(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    beside = {name: torch.tensor(7) for name in ("input_resolution", "context_length")}
    weights = prefixed({**saved_vit.model.state_dict(), **beside}, "module.")
    torch.save({**weights, "module.vocab_size": torch.tensor(7)}, tmp_path / "a.pt")
    assert_same_to_the_bit(build(tmp_path / "a.pt"), saved_vit.model)


def test_parameters_and_views_are_read_as_weights(saved_vit: SavedModel, tmp_path: Path) -> None:
    weights: dict[str, Tensor] = dict(saved_vit.model.named_parameters())
    turned = weights["text_projection"].data.t().contiguous().t()
    assert not turned.is_contiguous()
    torch.save({**weights, "text_projection": turned}, tmp_path / "a.pt")
    model = build(tmp_path / "a.pt")
    assert_same_to_the_bit(model, saved_vit.model)
    assert model.text_projection.requires_grad


def test_the_model_of_a_training_checkpoint_is_read(saved_vit: SavedModel, tmp_path: Path) -> None:
    model = build(saved_vit.safetensors)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    content = {"epoch": 1, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "epoch_1.pt")
    assert_same_to_the_bit(build(tmp_path / "epoch_1.pt"), model)


def test_a_training_checkpoint_with_arguments_is_refused_with_advice_on_saving(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    import argparse

    content = {"state_dict": saved_vit.model.state_dict(), "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UnsafeCheckpointError, match=r"'argparse\.Namespace'.*model\.state_dict"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_saved_module_is_refused_with_advice_on_saving(
    legacy: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeCheckpointError, match=r"'torch\.nn\.modules\.linear\.Linear'"):
        read(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "holds an empty dictionary"),
        (OrderedDict(), "holds an empty dictionary"),
        ([torch.ones(2)], "holds a list"),
        ((torch.ones(2),), "holds a tuple"),
        (torch.ones(2), "holds a single tensor"),
        (7, "holds no tensors"),
        ({"state_dict": {}}, "holds an empty dictionary"),
        ({"weights": {"w": torch.ones(2)}}, "holds 'weights' among its tensors"),
        ({"w": torch.ones(2), "epoch": 3}, "holds 'epoch' among its tensors"),
        ({"w": torch.ones(2), "list": [torch.ones(2)]}, "holds 'list' among its tensors"),
        ({str(n): n for n in range(9)}, "holds '0', '1', '2' and 6 more among"),
    ],
)
def test_content_that_is_not_a_state_dict_is_refused_and_described(
    content: object, told: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=told) as refusal:
        read(tmp_path / "a.pt")
    assert "torch.save(model.state_dict(), ...)" in str(refusal.value)


@pytest.mark.parametrize("content", [{"vocab_size": torch.ones(1)}, {"module.": torch.ones(1)}])
def test_a_file_without_weights_is_refused(content: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(content, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError):
        read(tmp_path / "a.safetensors")


def test_a_safetensors_file_without_tensors_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="holds no weights"):
        read(tmp_path / "a.safetensors")


def test_a_name_with_terminal_control_characters_is_refused(tmp_path: Path) -> None:
    save_file({"\x1b[2J": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="too long or not printable") as refusal:
        read(tmp_path / "a.safetensors")
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (
            b"<!DOCTYPE html><title>404</title>",
            r"begins with b'<!DOCTYP'.*web page or a Git LFS pointer",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "web page or a Git LFS pointer",
        ),
        (b"PK\x05\x06" + bytes(18), "neither a safetensors file"),
        (b"PK\x03\x04", "zip file with a damaged directory"),
        (b"\x00", "neither a safetensors file"),
        (bytes(8) + b"{", "cannot be read as a safetensors file"),
        (b"\xff" * 8 + b"{}", "cannot be read as a safetensors file"),
        (b"\x02" + bytes(7) + b"{}", "holds no weights"),
        (b"\x80", "pickle is damaged"),
        (b"\x80\x02N.", "but torch.save did not write it"),
        (b"(lp0\n.", "neither a safetensors file"),
    ],
)
def test_a_file_that_is_not_a_weight_file_is_refused_and_described(
    data: bytes, told: str, tmp_path: Path
) -> None:
    path = malicious.write(tmp_path / "model.pt", data)
    with pytest.raises(CheckpointError, match=told) as refusal:
        read(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused(kind: str, saved_vit: SavedModel, tmp_path: Path) -> None:
    whole = saved_vit.file(kind).read_bytes()
    path = tmp_path / "cut"
    ends = {*range(20), *range(100, len(whole), len(whole) // 40), *range(-60, 0, 7), -1}
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError) as refusal:
            read(path)
        assert str(path) in str(refusal.value), end
        assert not isinstance(refusal.value, WeightsMismatchError), end


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be opened: Is a directory"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be opened: No such file"):
        read(tmp_path / "nothing")


def test_a_file_without_read_permission_is_refused(
    saved_vit: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # root can read every file
    with pytest.raises(CheckpointError, match="cannot be opened: Permission denied"):
        read(saved_vit.state_dict)


def test_a_zip_with_a_damaged_entry_is_refused(saved_vit: SavedModel, tmp_path: Path) -> None:
    for source in (saved_vit.state_dict, saved_vit.archive):
        data = bytearray(source.read_bytes())
        data[data.index(b"visual.conv1" if source == saved_vit.state_dict else b"visual")] ^= 1
        path = malicious.write(tmp_path / "a.pt", bytes(data))
        with pytest.raises(CheckpointError, match="Bad CRC-32"):
            read(path)


def test_an_encrypted_zip_is_refused(saved_vit: SavedModel, tmp_path: Path) -> None:
    data = bytearray(saved_vit.state_dict.read_bytes())
    with zipfile.ZipFile(saved_vit.state_dict) as archive:
        start = archive.getinfo("state_dict/data.pkl").header_offset
    directory = data.index(b"PK\x01\x02")
    data[start + 6] |= 1
    data[directory + 8] |= 1
    path = malicious.write(tmp_path / "a.pt", bytes(data))
    with pytest.raises(CheckpointError, match="encrypted"):
        read(path)


Change = Callable[[dict[str, Tensor]], object]
MISFITS: dict[str, tuple[Change, str]] = {
    "missing": (lambda w: w.pop("ln_final.bias"), "missing ln_final.bias"),
    "left over": (lambda w: w.update(extra=torch.ones(1)), "unexpected extra"),
    "another shape": (
        lambda w: w.update({"visual.ln_pre.bias": torch.ones(63)}),
        r"visual.ln_pre.bias is \(63,\) instead of \(64,\)",
    ),
    "integers": (
        lambda w: w.update({"ln_final.bias": torch.ones(64, dtype=torch.int32)}),
        "ln_final.bias holds torch.int32 instead of torch.float32",
    ),
    "truths": (
        lambda w: w.update({"ln_final.bias": torch.ones(64, dtype=torch.bool)}),
        "ln_final.bias holds torch.bool instead of torch.float32",
    ),
    "not a scalar": (lambda w: w.update(logit_scale=torch.ones(2)), r"logit_scale is \(2,\)"),
}


@pytest.mark.parametrize("with_config", [False, True])
@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit_are_refused_and_named(
    case: str, with_config: bool, saved_vit: SavedModel, tmp_path: Path
) -> None:
    change, told = MISFITS[case]
    weights = dict(saved_vit.model.state_dict())
    change(weights)
    save_file(weights, tmp_path / "a.safetensors")
    config = write_config(tmp_path, TINY_VIT) if with_config else None
    with pytest.raises(WeightsMismatchError, match=told):
        build(tmp_path / "a.safetensors", config)


def test_a_floating_point_num_batches_tracked_is_refused(
    saved_resnet: SavedModel, tmp_path: Path
) -> None:
    name = "visual.bn1.num_batches_tracked"
    weights = {**saved_resnet.model.state_dict(), name: torch.tensor(7.0)}
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(WeightsMismatchError, match=f"{name} holds torch.float32"):
        build(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("visual.positional_embedding", torch.empty(0, 64)),
        ("visual.positional_embedding", torch.tensor(1.0)),
        ("visual.conv1.weight", torch.tensor(1.0)),
        ("visual.conv1.weight", torch.empty(0, 3, 16, 16)),
        ("visual.conv1.weight", torch.ones(64, 3, 16, 0)),
        ("text_projection", torch.ones(64)),
        ("positional_embedding", torch.empty(0, 64)),
        ("token_embedding.weight", torch.ones(1, 64)),
        ("ln_final.weight", torch.ones(63)),
        ("ln_final.weight", torch.tensor(1.0)),
    ],
)
def test_shapes_that_describe_no_model_are_refused(
    name: str, tensor: Tensor, saved_vit: SavedModel, tmp_path: Path
) -> None:
    torch.save({**saved_vit.model.state_dict(), name: tensor}, tmp_path / "a.pt")
    with pytest.raises(WeightsMismatchError, match="Give the folder with its config"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize("stage", [1, 4])
def test_a_resnet_without_a_stage_is_refused(
    stage: int, saved_resnet: SavedModel, tmp_path: Path
) -> None:
    prefix = f"visual.layer{stage}."
    weights = {k: v for k, v in saved_resnet.model.state_dict().items() if prefix not in k}
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(WeightsMismatchError, match="Give the folder with its config"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["visual.conv1.weight", "text_projection", "ln_final.weight"])
def test_bare_weights_that_do_not_determine_the_model_are_refused(
    name: str, saved_vit: SavedModel, tmp_path: Path
) -> None:
    weights = dict(saved_vit.model.state_dict())
    del weights[name]
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(WeightsMismatchError, match=f"{name} is missing"):
        read(tmp_path / "a.pt")


def test_the_weights_of_another_project_are_refused(tmp_path: Path) -> None:
    save_file({"encoder.layer.0.weight": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsMismatchError, match="not in OpenAI's layout"):
        read(tmp_path / "a.safetensors")


def test_a_config_beside_the_weights_overrides_their_shapes(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    config = dataclasses.replace(TINY_VIT, activation="gelu", image_mean=(0.0, 0.0, 0.0))
    assert read(saved_vit.safetensors, write_config(tmp_path, config)).config == config


def test_a_config_of_another_model_is_refused(saved_vit: SavedModel, tmp_path: Path) -> None:
    config = write_config(tmp_path, dataclasses.replace(TINY_VIT, transformer_layers=3))
    with pytest.raises(WeightsMismatchError, match=r"missing transformer\.resblocks\.2\."):
        build(saved_vit.safetensors, config)


def test_a_small_file_does_not_build_a_huge_model(saved_vit: SavedModel, tmp_path: Path) -> None:
    config = write_config(tmp_path, RELEASES["ViT-L/14"].config)
    with pytest.raises(
        WeightsMismatchError, match="297,473 numbers, but its configuration gives 427,616,513"
    ):
        read(saved_vit.safetensors, config)


def test_many_small_layers_do_not_build_a_huge_model(saved_vit: SavedModel, tmp_path: Path) -> None:
    weights = dict(saved_vit.model.state_dict())
    weights["visual.conv1.weight"] = torch.ones(4096, 3, 1, 1)
    weights |= {f"visual.transformer.resblocks.{n}.x": torch.ones(1) for n in range(40)}
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(
        WeightsMismatchError, match="numbers, but the configuration inferred from its shapes gives"
    ):
        read(tmp_path / "a.pt")


def test_a_broken_config_is_refused_as_a_config_error(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    config = malicious.write(tmp_path / "config.json", b"{")
    with pytest.raises(ConfigError, match="is not JSON"):
        read(saved_vit.safetensors, config)


@pytest.mark.parametrize("name", RELEASES)
def test_the_configuration_of_a_release_is_inferred_from_its_shapes(name: str) -> None:
    config = RELEASES[name].config
    weights = without_memory(lambda: CLIP(**config.to_dict())).state_dict()
    assert infer_config(weights, Path("model.pt")) == config


OTHER_MLPS = dataclasses.replace(TINY_VIT, vision_mlp_width=100, transformer_mlp_width=37)


def test_other_mlp_widths_are_inferred_from_every_kind_of_file(
    save_model: Callable[[ClipConfig, torch.dtype], SavedModel],
) -> None:
    saved = save_model(OTHER_MLPS, torch.float32)
    for path in saved.files:
        assert read(path).config == OTHER_MLPS
        assert_same_to_the_bit(build(path), saved.model)
    resnet = dataclasses.replace(TINY_RESNET, transformer_mlp_width=37)
    assert read(save_model(resnet, torch.float32).archive).config == resnet


def test_a_block_with_an_mlp_of_its_own_is_named(saved_vit: SavedModel, tmp_path: Path) -> None:
    name = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    weights = {**saved_vit.model.state_dict(), name: torch.zeros(100, 64)}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsMismatchError, match=rf"{name} is \(100, 64\) instead of \(256, 64"):
        build(tmp_path / "model.safetensors")


def test_mlps_without_hidden_units_are_refused(saved_vit: SavedModel, tmp_path: Path) -> None:
    weights = {
        name: torch.zeros(0, 64) if name.endswith("c_fc.weight") else tensor
        for name, tensor in saved_vit.model.state_dict().items()
    }
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsMismatchError, match="mlp_width is 0; it must be between"):
        build(tmp_path / "model.safetensors")


WRITERS: dict[str, Callable[[Path, bytes], Path]] = {
    "archive": malicious.write_archive,
    "state dict": malicious.write_state_dict,
    "legacy": malicious.write_legacy,
    "plain": malicious.write,
}


@pytest.mark.parametrize("trick", malicious.system_calls(""))
@pytest.mark.parametrize("place", WRITERS)
def test_a_pickle_that_runs_a_command_is_refused_and_nothing_runs(
    place: str, trick: str, tmp_path: Path
) -> None:
    marker = tmp_path / "it-ran"
    pickled = malicious.system_calls(f"touch '{marker}'")[trick]
    path = WRITERS[place](tmp_path / "model.safetensors", pickled)
    with pytest.raises(UnsafeCheckpointError, match="nothing was run"):
        read(path)
    assert not marker.exists()


def test_a_command_among_the_weights_of_a_valid_archive_is_refused(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    marker = tmp_path / "it-ran"
    call = b"cos\nsystem\n" + malicious.text(f"touch '{marker}'") + b"\x85R0"
    for source in (saved_vit.archive, saved_vit.state_dict):
        path = malicious.change_pickle(
            source, tmp_path / "a.pt", lambda data: data[:2] + call + data[2:]
        )
        with pytest.raises(UnsafeCheckpointError, match="system"):
            read(path)
        assert not marker.exists()
        malicious.change_pickle(source, path, lambda data: data)
        assert_same_to_the_bit(build(path), saved_vit.model)


def test_code_in_an_archive_is_not_run(saved_vit: SavedModel, tmp_path: Path) -> None:
    path = malicious.rewrite(
        saved_vit.archive,
        tmp_path / "a.pt",
        lambda name, data: b"import os; os.abort()" if "/code/" in name else data,
    )
    assert_same_to_the_bit(build(path), saved_vit.model)


@pytest.mark.parametrize(
    "case",
    [
        Described(Storage(), shape=(5,)),
        Described(Storage(), (0,), (0, 2**62, 2**62), (1, 1, 1)),
        Described(Storage(), 0, (0, 2**62, 2**62), (1, 1, 1)),
        Described(Storage(key="1")),
    ],
)
def test_a_tensor_that_is_not_in_the_file_is_refused(case: Described, tmp_path: Path) -> None:
    path = malicious.write_state_dict(
        tmp_path / "a.pt", malicious.described({"w": case}), _0=bytes(16)
    )
    with pytest.raises(CheckpointError) as refusal:
        read(path)
    assert str(path) in str(refusal.value)
    assert not isinstance(refusal.value, WeightsMismatchError)


def test_a_safetensors_header_with_wrong_offsets_or_shapes_is_refused(tmp_path: Path) -> None:
    for offsets, shape in [([0, 8], [4]), ([0, 16], [2**62]), ([0, 99], [4]), ([8, 4], [4])]:
        header = {"w": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
        encoded = json.dumps(header).encode()
        data = len(encoded).to_bytes(8, "little") + encoded + bytes(16)
        path = malicious.write(tmp_path / "a.safetensors", data)
        with pytest.raises(CheckpointError, match="cannot be read as a safetensors file"):
            read(path)


def test_transformers_weights_that_cannot_be_joined_are_refused(tmp_path: Path) -> None:
    prefix = "text_model.encoder.layers.0.self_attn."
    shapes = {"q": (4, 4), "k": (4, 4), "v": (3, 3)}
    tensors = {f"{prefix}{k}_proj.weight": torch.zeros(shape) for k, shape in shapes.items()}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="cannot be read as a safetensors file"):
        read_checkpoint(Source(path, TINY_VIT, "a test"))
