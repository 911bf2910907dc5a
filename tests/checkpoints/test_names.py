"""Tensor names in files of trainers: prefixes, wrappers, and foreign tensors."""

import functools
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT, draw
from safetensors.torch import save_file
from torch import Tensor, nn

import hfclip
from hfclip.checkpoints.names import describe_misfit, find_naming, list_names
from hfclip.checkpoints.read import read_checkpoint
from hfclip.compat import clip as compat
from hfclip.config import ClipConfig
from hfclip.errors import CheckpointError, WeightsMismatchError
from hfclip.layouts.files import Source
from hfclip.layouts.open_clip import config_to_open_clip
from hfclip.layouts.transformers import to_transformers
from hfclip.model import CLIP

Weights = dict[str, Tensor]


def state(config: ClipConfig = TINY_VIT) -> Weights:
    return dict(_drawn(config))


@functools.cache
def _drawn(config: ClipConfig) -> Weights:
    return draw(config).state_dict()


def prefixed(prefix: str, tensors: Weights) -> Weights:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def build(path: Path, config: ClipConfig | None = None) -> CLIP:
    return CLIP.from_checkpoint(read_checkpoint(Source(path, config, "a test")))


def assert_whole(model: nn.Module, expected: Weights) -> None:
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


PREFIXES = (
    *("_orig_mod.", "module.", "model.", "clip.", "net.", "clipmodel.", "backbone.encoder."),
    *("module._orig_mod.", "_orig_mod.module.", "model.clip._orig_mod.module.", "0.", "a.b.c.d."),
    *("visual.", "text_model.", "model.visual.", "transformer.", "clip.clip.clip."),
)


@pytest.mark.parametrize("by_transformers", [False, True])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_is_removed(prefix: str, by_transformers: bool, tmp_path: Path) -> None:
    expected = state()
    named = to_transformers(expected) if by_transformers else expected
    torch.save({"state_dict": prefixed(prefix, named)}, tmp_path / "a.pt")
    assert_whole(build(tmp_path / "a.pt"), expected)
    save_file(prefixed(prefix, named), tmp_path / "a.safetensors")
    assert_whole(build(tmp_path / "a.safetensors", TINY_VIT), expected)
    assert read_checkpoint(Source(tmp_path / "a.pt", None, "a test")).prefix == prefix


def test_the_prefix_of_a_resnet_is_removed(tmp_path: Path) -> None:
    expected = state(TINY_RESNET)
    torch.save(prefixed("module.net.", expected), tmp_path / "a.pt")
    assert_whole(build(tmp_path / "a.pt"), expected)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "module"])
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_are_found_in_each_wrapper(wrapper: str, legacy: bool, tmp_path: Path) -> None:
    expected = state()
    content = {
        "epoch": 3,
        wrapper: prefixed("_orig_mod.", expected),
        "ema": prefixed("e.", expected),
    }
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert_whole(build(tmp_path / "a.pt"), expected)
    nested = {"model": {wrapper: {"state_dict": expected}}, "state_dict": {"step": 4}}
    torch.save(nested, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert_whole(build(tmp_path / "a.pt"), expected)


def test_two_wrappers_with_tensors_are_refused_and_both_are_named(tmp_path: Path) -> None:
    torch.save({"model": state(), "state_dict": {"model": state()}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="under 'state_dict' and under 'model'"):
        build(tmp_path / "a.pt")


def test_state_dicts_of_torchs_wrappers_load(tmp_path: Path) -> None:
    model, expected = draw(TINY_VIT), state()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    # The backend changes no name, and the usual one takes seconds to import.
    compiled: nn.Module = torch.compile(model, backend="eager")  # type: ignore[assignment]
    around = torch.optim.swa_utils.AveragedModel(nn.DataParallel(model))
    for wrapped in (averaged, compiled, around, nn.Sequential(averaged), nn.DataParallel(model)):
        torch.save(wrapped.state_dict(), tmp_path / "a.pt")
        loaded, _ = hfclip.load(tmp_path / "a.pt", device="cpu")
        assert_whole(loaded, expected)
        assert_whole(CLIP.from_pretrained(tmp_path / "a.pt"), expected)
        assert_whole(compat.load(str(tmp_path / "a.pt"), device="cpu")[0], expected)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("legacy", [False, True])
def test_numpy_scalars_beside_the_weights_are_left_out(
    protocol: int, legacy: bool, tmp_path: Path
) -> None:
    expected = state()
    scalars = [np.float64(0.5), np.float32(1), np.int64(3), np.bool_(True), np.str_("best")]
    content = {
        "state_dict": prefixed("module.", expected),
        "best": scalars[0],
        "history": scalars,
        "optimizer": {"param_groups": [{"lr": np.float32(1e-4)}], "state": {0: {"s": scalars[2]}}},
        "when": np.datetime64("2024-01-01"),
    }
    torch.save(
        content,
        tmp_path / "a.pt",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    assert_whole(build(tmp_path / "a.pt"), expected)


@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_a_scale_of_shape_1_becomes_a_scalar(kind: str, tmp_path: Path) -> None:
    expected = state()
    nonscalar = {**expected, "logit_scale": expected["logit_scale"].reshape(1)}
    path = tmp_path / "a"
    save_file(nonscalar, path) if kind == "safetensors" else torch.save(nonscalar, path)
    assert_whole(build(path), expected)
    assert_whole(build(path, TINY_VIT), expected)
    torch.save(prefixed("clip.", to_transformers(nonscalar)), path)
    assert_whole(build(path), expected)


@pytest.mark.parametrize("value", [True, False, None])
def test_open_clips_nonscalar_scale_loads_with_its_configuration(
    value: object, tmp_path: Path
) -> None:
    expected, values = state(), config_to_open_clip(TINY_VIT)
    values["model_cfg"]["nonscalar_logit_scale"] = value
    (tmp_path / "open_clip_config.json").write_text(json.dumps(values))
    shape = (1,) if value else ()
    nonscalar = {**expected, "logit_scale": expected["logit_scale"].reshape(shape)}
    save_file(nonscalar, tmp_path / "open_clip_model.safetensors")
    assert_whole(hfclip.load(tmp_path, device="cpu")[0], expected)


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_position_ids_of_old_transformers_are_not_weights(prefix: str, tmp_path: Path) -> None:
    expected = state()
    theirs = to_transformers(expected)
    for tower in ("text_model", "vision_model"):
        theirs[f"{tower}.embeddings.position_ids"] = torch.arange(5).unsqueeze(0)
    torch.save(prefixed(prefix, theirs), tmp_path / "pytorch_model.bin")
    assert_whole(build(tmp_path / "pytorch_model.bin"), expected)
    assert_whole(hfclip.load(tmp_path / "pytorch_model.bin", device="cpu")[0], expected)


HEAD = {"head.weight": torch.ones(2, 64), "head.bias": torch.ones(2)}
TOLD = "2 tensors under 'head.'"


def _teacher(weights: Weights) -> Weights:
    tower = {name: tensor for name, tensor in weights.items() if name.startswith("visual.")}
    return {**prefixed("student.", weights), **prefixed("teacher.", tower)}


REFUSED: dict[str, tuple[Callable[[Weights], Weights], tuple[str, ...]]] = {
    "head beside a CLIP": (
        lambda w: {**w, **HEAD},
        (TOLD, "head.weight, head.bias", "Save the CLIP's weights alone"),
    ),
    "head under the same prefix": (
        lambda w: prefixed("model.", {**w, **HEAD}),
        (TOLD, "head.weight, head.bias", "begin with 'model.'"),
    ),
    "head outside the prefix": (
        lambda w: {**prefixed("clip.", w), **HEAD},
        (f"{TOLD} that are not part of a CLIP: head.weight, head.bias", "begin with 'clip.'"),
    ),
    "head in the image tower": (
        lambda w: {**w, **prefixed("visual.", HEAD)},
        ("2 tensors under 'visual.head.'", "visual.head.weight, visual.head.bias"),
    ),
    "head in place of a projection": (
        lambda w: {k: v for k, v in {**w, **HEAD}.items() if k != "visual.proj"},
        ("missing visual.proj;", TOLD),
    ),
    "head alone": (
        lambda _: HEAD,
        (f"{TOLD} that are not part of a CLIP: head.weight, head.bias",),
    ),
    "teacher": (
        _teacher,
        (f"{len(_teacher(state())) - len(state())} tensors under 'teacher.' that are not part",),
    ),
    "two whole CLIPs": (
        lambda w: {**prefixed("student.", w), **prefixed("teacher.", w)},
        ("2 whole CLIPs", "'student.' and one under 'teacher.'"),
    ),
    "two whole CLIPs, one without a prefix": (
        lambda w: {**w, **prefixed("ema.", w)},
        ("2 whole CLIPs", "without a prefix and one under 'ema.'"),
    ),
    "adapter in a block": (
        lambda w: {**w, "visual.transformer.resblocks.1.adapter.down.weight": torch.ones(2, 2)},
        ("1 tensor under 'visual.transformer.resblocks.1.adapter.'",),
    ),
    "adapter alone": (
        lambda _: {"base_model.model.visual.x.lora_A.weight": torch.ones(2, 2)},
        ("1 tensor under 'base_model.' that is not part of a CLIP",),
    ),
    "another model": (
        lambda _: {f"encoder.layer.{n}.weight": torch.ones(2) for n in range(5)},
        ("5 tensors under 'encoder.'", "encoder.layer.2.weight and 2 more"),
    ),
    "a layer is missing, under a prefix": (
        lambda w: prefixed("net.", {k: v for k, v in w.items() if ".resblocks.0.mlp." not in k}),
        ("begin with 'net.'", "missing", "and 5 more; unexpected nothing"),
    ),
}


@pytest.mark.parametrize("with_config", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_weights_of_another_model_are_refused_by_name_and_prefix(
    case: str, with_config: bool, tmp_path: Path
) -> None:
    change, told = REFUSED[case]
    torch.save(change(state()), tmp_path / "a.pt")
    if with_config and case in {"head alone", "adapter alone", "another model"}:
        told = (f"{tmp_path / 'a.pt'} holds",)  # too few numbers for this configuration
    with pytest.raises(WeightsMismatchError) as refusal:
        build(tmp_path / "a.pt", TINY_VIT if with_config else None)
    for words in told:
        assert words in str(refusal.value)
    assert "attnpool" not in str(refusal.value)
    assert str(tmp_path / "a.pt") in str(refusal.value)


def test_a_mismatch_shows_both_lists_shortened() -> None:
    expected = ["visual.proj", *(f"transformer.{n}.weight" for n in range(5))]
    found = ["visual.proj", "transformer.9.weight", "transformer.9.bias", "scale"]
    assert describe_misfit(found, expected) == (
        "missing transformer.0.weight, transformer.1.weight, transformer.2.weight and 2 more; "
        "unexpected transformer.9.weight, transformer.9.bias (2 tensors under 'transformer.9.'), "
        "scale"
    )
    assert describe_misfit(expected, expected) == ""
    assert list_names(["a" * 300]) == "a" * 77 + "..."


def test_the_naming_does_not_depend_on_the_order_of_names() -> None:
    names = list(OrderedDict(prefixed("x.", state())))
    assert find_naming(names, "a file") == find_naming(names[::-1], "a file") == ("x.", False)


HOSTILE: dict[str, Callable[[], list[str]]] = {
    "many image towers": lambda: [f"{n}.visual.conv1.weight" for n in range(100_000)],
    "many prefixes": lambda: [*state(), *(f"{n}.weight" for n in range(100_000))],
    "deep names": lambda: [*state(), *(f"{n}" + ".a" * 120 for n in range(5_000))],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_names_crafted_to_be_slow_are_refused_quickly(case: str) -> None:
    names = dict.fromkeys(HOSTILE[case]())
    start = time.process_time()
    with pytest.raises(WeightsMismatchError) as refusal:
        raise WeightsMismatchError(describe_misfit(names, list(state())), find_naming(names, "it"))
    assert time.process_time() - start < 10
    assert len(str(refusal.value)) < 2_000


@pytest.mark.parametrize("name", ["a" * 256, ".".join("a" * 100_000), "a\nb"])
def test_a_name_that_is_too_long_or_not_printable_is_refused(name: str, tmp_path: Path) -> None:
    for save, path in ((torch.save, tmp_path / "a.pt"), (save_file, tmp_path / "a.safetensors")):
        save({**state(), name: torch.ones(1)}, path)
        with pytest.raises(CheckpointError, match="too long or not printable") as refusal:
            build(path)
        assert len(str(refusal.value)) < 1_000
