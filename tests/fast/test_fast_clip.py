"""FastCLIP as an object: copies, pickles, processes, dtype, and memory."""

import copy
import functools
import pickle
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT, draw
from torch import Tensor, nn

import hfclip
from hfclip.config import ClipConfig
from hfclip.fast import attention, onednn
from hfclip.fast import optimize as inference
from hfclip.fast.kernels import Precision, plain_toolbox
from hfclip.fast.optimize import STATED, FastCLIP

CONFIGS = {"ViT": TINY_VIT, "ResNet": TINY_RESNET}
both_kinds = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
every_precision = pytest.mark.parametrize("precision", STATED)


@pytest.fixture(autouse=True)
def every_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a processor with instructions for every dtype."""
    monkeypatch.setattr(onednn, "has_instructions", lambda _precision: True)


@pytest.fixture
def default_device() -> Iterator[Callable[[str], None]]:
    yield torch.set_default_device
    torch.set_default_device(None)


@pytest.fixture
def default_dtype() -> Iterator[Callable[[torch.dtype], None]]:
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


def images_for(config: ClipConfig, count: int = 2) -> Tensor:
    side, numbers = config.image_resolution, torch.Generator().manual_seed(1)
    return torch.randn(count, 3, side, side, generator=numbers)


def ids_for(config: ClipConfig, lengths: list[int]) -> Tensor:
    ids = torch.ones(len(lengths), config.context_length, dtype=torch.int64)
    ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = config.vocab_size - 1
    return ids


def features(fast: FastCLIP, config: ClipConfig) -> list[Tensor]:
    return [fast.encode_image(images_for(config)), fast.encode_text(ids_for(config, [3, 7, 7]))]


def plain(model: hfclip.CLIP, precision: Precision) -> FastCLIP:
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    return inference._build(model, precision, plain_toolbox(dtype))


# The same model, and the same fast model of each maker, for all tests. They do not change them.
drawn = functools.cache(draw)
made = functools.cache(lambda make, precision, config: make(drawn(config), precision))
CLONES: dict[str, Callable[[FastCLIP], FastCLIP]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda fast: pickle.loads(pickle.dumps(fast)),
}


@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
@pytest.mark.parametrize("make", [hfclip.optimize, plain])
@every_precision
@both_kinds
def test_a_copy_gives_identical_features(
    clone: Callable[[FastCLIP], FastCLIP], make: Any, precision: Precision, config: ClipConfig
) -> None:
    fast = made(make, precision, config)
    twin = clone(fast)
    assert twin is not fast
    assert (twin.precision, twin.computes_in) == (fast.precision, fast.computes_in)
    assert (twin.measured, twin.config, twin.dtype) == (fast.measured, config, torch.float32)
    for ours, theirs in zip(features(twin, config), features(fast, config), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("make", [hfclip.optimize, plain])
def test_a_pickle_of_a_model_in_one_storage_has_each_tensor_once(make: Any) -> None:
    model = draw(TINY_VIT)
    one = torch.cat([tensor.detach().flatten() for tensor in model.parameters()])
    start = 0
    for parameter in model.parameters():
        end = start + parameter.numel()
        parameter.data = one[start:end].view(parameter.shape)
        start = end
    fast = make(model, "float32")
    assert len(pickle.dumps(fast)) < 1.1 * one.nbytes + 100_000


def test_a_deep_copy_outlives_the_memory_of_the_model() -> None:
    model = draw(TINY_VIT)
    fast = hfclip.optimize(model)
    twin = copy.deepcopy(fast)
    expected = features(fast, TINY_VIT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for ours, theirs in zip(features(twin, TINY_VIT), expected, strict=True):
        assert torch.equal(ours, theirs)


# Another process, which has only the pickle of a model, as a spawned process has.
ENCODE = """
import pickle, sys, torch
with open("models.pickle", "rb") as file:
    models, inputs = pickle.load(file)
features = [[model.encode_image(inputs[0]), model.encode_text(inputs[1])] for model in models]
torch.save(features, "features.pt")
"""


@pytest.fixture(scope="module")
def spawned(
    tmp_path_factory: pytest.TempPathFactory, python: Path
) -> dict[Any, tuple[FastCLIP, list[Tensor]]]:
    """Returns a model of each maker and its features, which one other process computes."""
    makers: list[Any] = [hfclip.optimize, plain]
    models = [made(make, "float32", TINY_VIT) for make in makers]
    folder = tmp_path_factory.mktemp("spawned")
    inputs = images_for(TINY_VIT), ids_for(TINY_VIT, [3, 7, 7])
    (folder / "models.pickle").write_bytes(pickle.dumps((models, inputs)))
    subprocess.run([python, "-c", ENCODE], cwd=folder, check=True)
    found = torch.load(folder / "features.pt")
    return dict(zip(makers, zip(models, found, strict=True), strict=True))


@pytest.mark.parametrize("make", [hfclip.optimize, plain])
def test_another_process_gives_identical_features(
    make: Any, spawned: dict[Any, tuple[FastCLIP, list[Tensor]]]
) -> None:
    fast, found = spawned[make]
    for ours, theirs in zip(found, features(fast, TINY_VIT), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("precision", "missing", "said"),
    [
        ("float32", "_packs", "mkldnn::_reorder_linear_weight"),
        ("bfloat16", "_packs", "for torch.bfloat16"),
        ("int8", "_quantizes", "onednn::qlinear_prepack"),
    ],
)
def test_a_pickle_is_refused_if_its_operators_are_missing(
    precision: Precision, missing: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled = pickle.dumps(made(hfclip.optimize, precision, TINY_VIT))
    monkeypatch.setattr(onednn, missing, lambda *_: False)
    with pytest.raises(hfclip.OptimizationError, match=r"call hfclip\.optimize") as refusal:
        pickle.loads(pickled)
    assert said in str(refusal.value)


def test_an_int8_pickle_is_refused_if_its_sums_would_overflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pickled = pickle.dumps(made(hfclip.optimize, "int8", TINY_VIT))
    monkeypatch.setattr(onednn, "has_instructions", lambda precision: precision != "int8")
    with pytest.raises(hfclip.OptimizationError, match="qlinear_prepack"):
        pickle.loads(pickled)


def test_it_has_the_dtype_and_the_mode_of_a_model_for_inference() -> None:
    fast = made(hfclip.optimize, "bfloat16", TINY_VIT)
    assert fast.eval() is fast
    assert fast.dtype == torch.float32 == fast.encode_text(ids_for(TINY_VIT, [3])).dtype
    images = images_for(TINY_VIT)
    assert torch.equal(fast.encode_image(images.type(fast.dtype)), fast.encode_image(images))


@both_kinds
def test_empty_batches_give_empty_features(config: ClipConfig) -> None:
    fast = made(hfclip.optimize, "float32", config)
    for width in (0, 1, config.context_length):
        text = torch.zeros(0, width, dtype=torch.int64)
        assert fast.encode_text(text).shape == (0, config.embed_dim)
    assert fast.encode_image(images_for(config, 0)).shape == (0, config.embed_dim)


@pytest.mark.parametrize("given", ["a picture", None, [[1, 2]], nn.Identity()])
def test_inputs_that_are_not_tensors_are_refused_and_their_type_is_named(given: Any) -> None:
    fast, kind = made(hfclip.optimize, "float32", TINY_VIT), type(given).__qualname__
    with pytest.raises(hfclip.ShapeError, match=f"images are of type .*{kind}; expected floats"):
        fast.encode_image(given)
    with pytest.raises(hfclip.ShapeError, match=f"text is of type .*{kind}; expected int32"):
        fast.encode_text(given)


def test_an_id_beyond_the_vocabulary_is_refused() -> None:
    ids = torch.full((1, 4), TINY_VIT.vocab_size)
    with pytest.raises(hfclip.UnknownTokenError, match=f"tokens 0 to {TINY_VIT.vocab_size - 1}"):
        made(hfclip.optimize, "float32", TINY_VIT).encode_text(ids)


@every_precision
@both_kinds
def test_any_default_device_and_dtype_give_the_same_features(
    config: ClipConfig,
    precision: Precision,
    default_device: Callable[[str], None],
    default_dtype: Callable[[torch.dtype], None],
) -> None:
    model = drawn(config)
    usual = hfclip.optimize(model, precision)
    images, ids = images_for(config), ids_for(config, [3, 7])
    expected = [usual.encode_image(images), usual.encode_text(ids)]
    onednn._packs.cache_clear()
    onednn._quantizes.cache_clear()
    default_device("meta")
    default_dtype(torch.float64)
    fast = hfclip.optimize(model, precision)
    found = [fast.encode_image(images), fast.encode_text(ids)]
    assert (fast.computes_in, fast.measured) == (usual.computes_in, usual.measured)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_rows_are_padded_a_little_to_few_sizes() -> None:
    numbers = [attention.padded_rows(rows) for rows in range(1, 1025)]
    assert numbers[:34] == [*range(1, 33), 34, 34]
    assert (numbers[99], numbers[128], numbers[600], numbers[1023]) == (100, 136, 608, 1024)
    assert len(set(numbers)) == 32 + 5 * 16
    assert all(0 <= padded - rows <= rows / 16 for rows, padded in enumerate(numbers, 1))


@every_precision
def test_texts_of_many_lengths_reach_the_kernels_in_few_sizes(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN keeps memory for each size. Without padding, most random batches have a new size."""
    fast = made(hfclip.optimize, precision, TINY_VIT)
    sizes: set[tuple[str, int]] = set()
    kernel = onednn._QuantizedLinear if precision == "int8" else onednn._PackedLinear
    usual = kernel.__call__

    def watched(self: Any, x: Tensor, residual: Tensor | None = None) -> Tensor:
        sizes.add(("linear", len(x)))
        return usual(self, x, residual)

    bmm = torch.bmm

    def watched_bmm(x: Tensor, y: Tensor) -> Tensor:
        if x.dtype == torch.bfloat16:  # in float32 torch keeps no memory
            sizes.add(("bmm", x.shape[1]))
        return bmm(x, y)

    monkeypatch.setattr(kernel, "__call__", watched)
    monkeypatch.setattr(torch, "bmm", watched_bmm)
    draws = random.Random(0)  # noqa: S311  # no secret
    for _ in range(100):
        lengths = draws.choices(range(2, TINY_VIT.context_length + 1), k=draws.randint(1, 60))
        fast.encode_text(ids_for(TINY_VIT, lengths))
    few = {attention.padded_rows(rows) for rows in range(1, 1025)}
    assert {rows for _, rows in sizes} <= few
    assert max(rows for _, rows in sizes) > 400
    assert 40 < len(sizes) <= 2 * len(few)


@every_precision
def test_padding_changes_no_feature(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in int8: the padding repeats a row, so the quantized range stays the same."""
    fast = made(hfclip.optimize, precision, TINY_VIT)
    ids = ids_for(TINY_VIT, [2, 5, 9, 14, 16, 16, 3])
    padded = fast.encode_text(ids)
    monkeypatch.setattr("hfclip.fast.encoders.padded_rows", lambda rows: rows)
    alone = fast.encode_text(ids)
    limit = {"float32": 1e-6, "bfloat16": 0.01, "int8": 1e-6}[precision]
    assert ((padded - alone).norm(dim=1) / alone.norm(dim=1)).max() < limit
