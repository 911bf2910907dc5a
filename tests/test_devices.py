from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hfclip
from hfclip.compat import clip as compat
from hfclip.devices import choose_device

LOADERS: list[Callable[[Any], Any]] = [
    lambda device: hfclip.load("digits", device=device),
    lambda device: compat.load("digits", device=device),
    lambda device: hfclip.CLIP.from_pretrained("digits", map_location=device),
]
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize("load", LOADERS, ids=["load", "compat", "from_pretrained"])
@pytest.mark.parametrize("device", ["gpu", "CUDA", "", "0", "cuda:", "cuda:-1", -1])
def test_an_unknown_device_name_is_refused_and_the_known_ones_are_listed(
    load: Callable[[Any], Any], device: Any
) -> None:
    with pytest.raises(hfclip.DeviceError) as caught:
        load(device)
    assert str(caught.value) == (
        f"device is {device!r}, which torch does not know; expected 'cpu', 'cuda', 'cuda:1', "
        "'mps', 'xpu' or 'meta'."
    )
    assert isinstance(caught.value, RuntimeError)  # clip and torch raise it too


@pytest.mark.parametrize("load", LOADERS, ids=["load", "compat", "from_pretrained"])
@pytest.mark.parametrize("device", [False, True, 0.0, b"cpu", Path("cpu"), ["cpu"]])
def test_a_device_of_another_type_is_refused(load: Callable[[Any], Any], device: Any) -> None:
    with pytest.raises(hfclip.ArgumentTypeError, match=f"a {type(device).__name__}; expected"):
        load(device)


@without_gpu
@pytest.mark.parametrize("load", LOADERS, ids=["load", "compat", "from_pretrained"])
@pytest.mark.parametrize("device", [0, 3, "cuda", "cuda:0", torch.device("cuda")])
def test_a_missing_gpu_is_refused_and_not_replaced_by_the_cpu(
    load: Callable[[Any], Any], device: Any
) -> None:
    with pytest.raises(hfclip.DeviceError, match=r"The device 'cuda.* cannot be used here: "):
        load(device)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            RuntimeError("Found no NVIDIA driver on your system. Please check that you have one."),
            "Found no NVIDIA driver on your system",
        ),
        (
            AssertionError("Torch not compiled with CUDA enabled"),
            "Torch not compiled with CUDA enabled",
        ),
        (RuntimeError("No CUDA GPUs are available"), "No CUDA GPUs are available"),
        (
            NotImplementedError("Could not run 'aten::empty' with arguments from the 'X' backend."),
            f"this torch ({torch.__version__}) was built without it",
        ),
        (ModuleNotFoundError("No module named 'torch.hpu'"), "No module named 'torch.hpu'"),
    ],
)
def test_the_message_has_the_cause_from_torch(
    error: Exception, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> torch.Tensor:
        raise error

    monkeypatch.setattr(torch, "empty", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(hfclip.DeviceError) as caught:
        choose_device("cuda")
    assert str(caught.value) == (
        f"The device 'cuda' cannot be used here: {cause}. Use 'cpu', or leave the device out to "
        "use the GPU if there is one."
    )


def test_a_gpu_index_too_high_is_refused_with_the_number_of_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: Any, **options: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: invalid device ordinal\nCUDA kernel errors might be ...")

    monkeypatch.setattr(torch, "empty", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(hfclip.DeviceError, match=r"'cuda:5'.*: the number of GPUs .* is 2\."):
        choose_device(5)


def test_a_device_that_works_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device("meta") == torch.device("meta")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == torch.device("cuda")


def test_from_pretrained_without_map_location_stays_on_the_cpu() -> None:
    for model in (
        hfclip.CLIP.from_pretrained("digits"),
        hfclip.CLIP.from_pretrained("digits", map_location=None),
    ):
        assert model.logit_scale.device == torch.device("cpu")
