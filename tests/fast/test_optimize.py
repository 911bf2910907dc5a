"""`optimize` gives the features of the model, or refuses the model."""

import copy
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT
from drawing import quickly_drawn
from torch import Tensor, nn

import hfclip
from conversion import digits
from hfclip.config import ClipConfig
from hfclip.fast import attention, encoders, onednn
from hfclip.fast import optimize as inference
from hfclip.fast.kernels import PlainKernels, Precision, Toolbox, plain_toolbox
from hfclip.fast.optimize import STATED, Accuracy, FastCLIP
from hfclip.network.clip import convert_weights
from hfclip.releases import RELEASES

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int8": torch.bfloat16,
}
CPU = torch.device("cpu")
OTHER_MLPS = replace(TINY_VIT, vision_mlp_width=301, transformer_mlp_width=37)


def cut(config: ClipConfig) -> ClipConfig:
    """A release with two blocks per stack, few tokens and small images.

    The widths are those of the release, except for ResNets, where they are a quarter.
    """
    small = replace(config, vocab_size=600, context_length=20, transformer_layers=2)
    if config.is_resnet:
        width = config.vision_width // 4
        return replace(small, vision_layers=(2, 1, 1, 2), vision_width=width, image_resolution=96)
    side = 3 * (config.vision_patch_size or 0)
    return replace(small, vision_layers=2, image_resolution=side)


def draw(config: ClipConfig, dtype: torch.dtype = torch.float32) -> hfclip.CLIP:
    """Returns a model that the test may change: a copy of the shared one."""
    return copy.deepcopy(drawn_once(config, dtype))


def drawn(config: ClipConfig, dtype: torch.dtype = torch.float32) -> hfclip.CLIP:
    """Draws a model with weights like trained ones: no default norms, no zero biases."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = quickly_drawn(lambda: hfclip.CLIP(**config.to_dict()))
        for name, tensor in model.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                tensor.normal_(std=0.1)
            elif tensor.ndim == 1 and name.endswith(("weight", "running_var")):
                tensor.uniform_(0.5, 1.5)
    convert_weights(model, dtype)
    return model


# The same model for all tests, which do not change it.
drawn_once = functools.cache(drawn)


def images_for(model: hfclip.CLIP, count: int) -> Tensor:
    side = model.config.image_resolution
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def ids_for(model: hfclip.CLIP, count: int) -> Tensor:
    """Returns texts of every length, some with non-zero ids after the end token."""
    config, random = model.config, torch.Generator().manual_seed(2)
    ids = torch.randint(config.vocab_size - 1, (count, config.context_length), generator=random)
    for row in range(count):
        ids[row, (5 * row + 3) % config.context_length] = config.vocab_size - 1
    return ids


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Returns the lowest value over all rows."""
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    return max(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).tolist(), default=0.0)


def cosine(ours: Tensor, theirs: Tensor) -> float:
    assert ours.dtype == torch.float32
    return torch.cosine_similarity(ours, theirs).min().item()


def plain(model: hfclip.CLIP, precision: Precision = "float32") -> FastCLIP:
    """Simulates a torch without oneDNN's operators."""
    return inference._build(model, precision, plain_toolbox(DTYPES[precision]))


MAKERS = {"packed": hfclip.optimize, "plain": plain}
both_ways = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
both_kinds = pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET], ids=["ViT", "ResNet"])
Make = Callable[..., FastCLIP]


@functools.cache
def made(make: Make, config: ClipConfig) -> FastCLIP:
    """Returns the same fast model for all cases of a test."""
    return make(drawn_once(config))


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@dataclass(frozen=True)
class Release:
    """A cut release and the features that it gives. Tests share all of them."""

    model: hfclip.CLIP
    images: Tensor
    ids: Tensor
    image_features: Tensor
    text_features: Tensor


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> Release:
    model = drawn(cut(RELEASES[request.param].config))
    images, ids = images_for(model, 3), ids_for(model, 9)
    with torch.no_grad():
        return Release(model, images, ids, model.encode_image(images), model.encode_text(ids))


@both_ways
def test_float32_differs_from_every_release_by_rounding(release: Release, make: Make) -> None:
    fast = make(release.model)
    assert difference(fast.encode_image(release.images), release.image_features) < 1e-5
    assert difference(fast.encode_text(release.ids), release.text_features) < 1e-5


@pytest.mark.parametrize(("precision", "lowest"), [("bfloat16", 0.999), ("int8", 0.995)])
def test_lower_precision_keeps_the_direction_of_every_release(
    release: Release, precision: Precision, lowest: float
) -> None:
    fast = hfclip.optimize(release.model, precision)
    image = cosine(fast.encode_image(release.images), release.image_features)
    text = cosine(fast.encode_text(release.ids), release.text_features)
    assert lowest < min(image, text)
    if fast.computes_in == precision:  # not more precise because the CPU lacks instructions
        assert text < 1 - 1e-7
        # ResNets are not computed in int8.
        assert release.model.config.is_resnet or image < 1 - 1e-7


@pytest.mark.parametrize(("precision", "lowest"), [("bfloat16", 0.999), ("int8", 0.995)])
def test_lower_precision_keeps_the_direction_with_other_mlps(
    precision: Precision, lowest: float
) -> None:
    model = drawn_once(OTHER_MLPS)
    for fast in (hfclip.optimize(model, precision), plain(model, precision)):
        for copied in (fast, copy.deepcopy(fast)):
            images, ids = images_for(model, 3), ids_for(model, 9)
            assert cosine(copied.encode_image(images), model.encode_image(images)) > lowest
            assert cosine(copied.encode_text(ids), model.encode_text(ids)) > lowest


def test_bfloat16_rounds_every_release_and_keeps_its_direction(release: Release) -> None:
    fast = plain(release.model, "bfloat16")
    assert 0.999 < cosine(fast.encode_image(release.images), release.image_features) < 1 - 1e-7
    assert 0.999 < cosine(fast.encode_text(release.ids), release.text_features) < 1 - 1e-7


@both_ways
@pytest.mark.parametrize(
    "config",
    [
        replace(TINY_VIT, activation="gelu"),
        replace(TINY_VIT, vision_head_width=16, transformer_heads=4),
        replace(TINY_VIT, vision_layers=1, transformer_layers=1),
        replace(TINY_VIT, vision_patch_size=32),
        replace(TINY_VIT, image_resolution=40),
        replace(TINY_RESNET, activation="gelu", vision_head_width=32),
        OTHER_MLPS,
        replace(OTHER_MLPS, activation="gelu"),
        replace(TINY_RESNET, transformer_mlp_width=37),
    ],
    ids=[
        *("gelu", "narrow heads", "one block", "one patch", "pixels left over", "ResNet, gelu"),
        *("other MLPs", "other MLPs, gelu", "ResNet, other MLPs"),
    ],
)
def test_configurations_that_openai_did_not_release_are_optimized(
    config: ClipConfig, make: Make
) -> None:
    model = drawn_once(config)
    fast = make(model)
    images, ids = images_for(model, 2), ids_for(model, 5)
    assert difference(fast.encode_image(images), model.encode_image(images)) < 1e-5
    assert difference(fast.encode_text(ids), model.encode_text(ids)) < 1e-5


@both_ways
@both_kinds
@pytest.mark.parametrize("count", [0, 1, 2, 17, 70])
def test_a_batch_may_have_any_size(
    config: ClipConfig, make: Make, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "TOKENS", 100)
    monkeypatch.setattr(encoders, "TOKENS", 100)
    monkeypatch.setattr(encoders, "PIXELS", 5 * 64 * 64)
    model = drawn_once(config)
    fast = made(make, config)
    images, ids = images_for(model, count), ids_for(model, count)
    assert difference(fast.encode_image(images), model.encode_image(images)) < 1e-5
    assert difference(fast.encode_text(ids), model.encode_text(ids)) < 1e-5


def test_texts_are_grouped_by_length_without_padding() -> None:
    groups = list(attention.batches([2, 2, 3, 500, 500, 500, 600]))
    assert groups == [[(2, 2), (1, 3), (2, 500)], [(1, 500)], [(1, 600)]]
    assert list(attention.batches([])) == []
    assert list(attention.batches([2000, 2001])) == [[(1, 2000)], [(1, 2001)]]


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("inputs", [1, 20], ids=["few rows", "many rows"])
def test_attention_in_bfloat16_is_close_to_float32(inputs: int, causal: bool) -> None:
    groups = [attention.Group(inputs, 12), attention.Group(1, 7)]
    random = torch.Generator().manual_seed(0)
    rows = sum(count * length for count, length in groups)
    qkv = torch.randn(rows, 3 * 64, generator=random).bfloat16()
    found = attention.attend(qkv, groups, 2, causal=causal)
    assert found.dtype == torch.bfloat16
    expected = attention.attend(qkv.float(), groups, 2, causal=causal)
    assert difference(found.float(), expected) < 0.02


@both_ways
def test_ids_may_be_cut_anywhere_after_the_end_token(make: Make) -> None:
    model = drawn_once(TINY_VIT)
    fast = make(model)
    ids = torch.tensor([[7, 599, 3, 0, 0], [9, 8, 7, 599, 0], [5, 5, 5, 5, 5], [599, 1, 599, 2, 3]])
    expected = model.encode_text(ids)
    assert difference(fast.encode_text(ids), expected) < 1e-5
    assert difference(fast.encode_text(ids.int()), expected) < 1e-5
    assert difference(fast.encode_text(ids[:, :4]), expected) < 1e-5
    assert difference(fast.encode_text(ids[:1, :2]), expected[:1]) < 1e-5


@both_ways
@both_kinds
def test_images_may_have_any_float_dtype_and_memory_format(config: ClipConfig, make: Make) -> None:
    model = drawn_once(config)
    fast = make(model)
    images = images_for(model, 6)
    expected = model.encode_image(images)
    kept = images.clone()
    for view in (
        images.to(memory_format=torch.channels_last),
        images.flip(3).flip(3),
        images.mT.contiguous().mT,
        images.double(),
        images.repeat_interleave(2, dim=0)[::2],
    ):
        assert difference(fast.encode_image(view), expected) < 1e-5
    for dtype in (torch.float16, torch.bfloat16):
        rounded = images.to(dtype)
        expected = model.encode_image(rounded.float())
        assert difference(fast.encode_image(rounded), expected) < 1e-5
    assert torch.equal(images, kept)


@both_ways
@both_kinds
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_any_dtype_computes_in_the_requested_dtype(
    config: ClipConfig, make: Make, dtype: torch.dtype
) -> None:
    model = drawn_once(config, dtype)
    fast = make(model)
    upcast = copy.deepcopy(model).float()
    images, ids = images_for(model, 2), ids_for(model, 4)
    assert difference(fast.encode_image(images), upcast.encode_image(images)) < 1e-5
    assert difference(fast.encode_text(ids), upcast.encode_text(ids)) < 1e-5


@both_ways
def test_logits_equal_those_of_the_model(make: Make) -> None:
    model = drawn_once(TINY_VIT)
    images, ids = images_for(model, 3), ids_for(model, 5)
    expected = model(images, ids)
    fast = make(model)
    for found in (fast(images, ids), fast.forward(images, ids)):
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("precision", STATED)
@both_kinds
def test_optimize_leaves_the_model_unchanged(config: ClipConfig, precision: Precision) -> None:
    model = draw(config, torch.float16).train()
    model.visual.conv1.eval()
    model.token_embedding.requires_grad_(requires_grad=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pointers = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    training = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    mask = model.transformer.resblocks[0].attn_mask
    fast = hfclip.optimize(model, precision)
    fast(images_for(model, 2), ids_for(model, 2))
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name: tensor.data_ptr() for name, tensor in after.items()} == pointers
    assert [module.training for module in model.modules()] == training
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert model.transformer.resblocks[0].attn_mask is mask
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_in_training_mode_is_optimized_as_in_eval_mode() -> None:
    model = draw(TINY_RESNET)
    images = images_for(model, 2)
    expected = model.encode_image(images)
    assert difference(hfclip.optimize(model.train()).encode_image(images), expected) < 1e-5


def storages(thing: Any) -> Iterator[int]:
    """Returns the start addresses of all tensors in an object of hfclip."""
    if isinstance(thing, Tensor):
        if not thing.is_mkldnn:
            yield thing.untyped_storage().data_ptr()
        return
    parts: list[Any] = []
    if isinstance(thing, list | tuple):
        parts += thing
    elif type(thing).__module__.startswith("hfclip"):
        parts += vars(thing).values()
    parts += [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
    for part in parts:
        yield from storages(part)


def names_shared(model: hfclip.CLIP, fast: FastCLIP) -> set[str]:
    held = set(storages(fast))
    state = model.state_dict().items()
    return {name for name, tensor in state if tensor.untyped_storage().data_ptr() in held}


@pytest.mark.parametrize("precision", STATED)
def test_weights_that_are_not_packed_are_shared_with_the_model(precision: Precision) -> None:
    model = drawn_once(TINY_VIT)
    shared = names_shared(model, hfclip.optimize(model, precision))
    assert shared >= {"token_embedding.weight", "positional_embedding", "text_projection"}
    assert shared >= {"visual.positional_embedding", "visual.proj", "logit_scale"}
    assert shared >= {name for name in model.state_dict() if ".ln_" in name or "ln_final" in name}


def test_without_packing_every_weight_is_shared_with_the_model() -> None:
    model = drawn_once(TINY_VIT)
    left = set(model.state_dict()) - names_shared(model, plain(model))
    assert left == {"visual.class_embedding"}  # it is stored with its position embedding added


@both_ways
@both_kinds
def test_features_are_ordinary_independent_tensors(config: ClipConfig, make: Make) -> None:
    model = drawn_once(config)
    fast = make(model)
    images, ids = images_for(model, 2), ids_for(model, 2)
    with torch.enable_grad():
        for encode, given in ((fast.encode_image, images), (fast.encode_text, ids)):
            first = encode(given)
            assert not first.requires_grad
            assert not first.is_inference()
            kept = first.clone()
            head = nn.Linear(first.shape[1], 1)
            head(first).sum().backward()
            first.zero_()
            assert torch.equal(encode(given), kept)
    with torch.inference_mode():
        assert fast.encode_image(images).shape == (2, config.embed_dim)


@pytest.mark.parametrize("precision", STATED)
@both_kinds
def test_many_threads_may_call_at_once(config: ClipConfig, precision: Precision) -> None:
    model = drawn_once(config)
    fast = hfclip.optimize(model, precision)
    batches = [(images_for(model, 1 + i % 3), ids_for(model, 1 + i % 5)) for i in range(24)]
    alone = [fast(*batch)[0] for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: fast(*batch)[0], batches))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 32, 32),
        torch.zeros(1, 1, 32, 32),
        torch.zeros(1, 3, 31, 32),
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(1, 3, 32, 32, device="meta"),
    ],
)
def test_images_of_another_shape_type_or_device_are_refused(images: Tensor) -> None:
    fast = made(hfclip.optimize, TINY_VIT)
    with pytest.raises(hfclip.ShapeError, match=r"expected floats \(B, 3, 32, 32\) on cpu"):
        fast.encode_image(images)


@pytest.mark.parametrize(
    "ids",
    [
        torch.zeros(16, dtype=torch.int64),
        torch.zeros(2, 17, dtype=torch.int64),
        torch.zeros(2, 0, dtype=torch.int64),
        torch.zeros(2, 16),
        torch.zeros(2, 16, dtype=torch.int64, device="meta"),
    ],
)
def test_ids_of_another_shape_type_or_device_are_refused(ids: Tensor) -> None:
    fast = made(hfclip.optimize, TINY_VIT)
    with pytest.raises(ValueError, match=r"int64 \(T, L\) with L from 1 to 16 on cpu"):
        fast.encode_text(ids)


def other_attention(model: Any) -> None:
    class Attention(nn.MultiheadAttention):
        pass

    model.transformer.resblocks[0].attn = Attention(64, 1)


def lambda_for_a_method(model: Any) -> None:
    model.encode_image = lambda image: image.flatten(1)[:, :64]


def method_of_a_block(model: Any) -> None:
    block = model.visual.transformer.resblocks[1]
    block.attention = lambda x: x


def hook(model: Any) -> None:
    model.ln_final.register_forward_hook(lambda _module, _inputs, output: output * 2)


def hook_before(model: Any) -> None:
    model.ln_final.register_forward_pre_hook(lambda _module, inputs: inputs)


def other_activation(model: Any) -> None:
    model.transformer.resblocks[1].mlp.gelu = nn.SiLU()


def both_ways_attention(model: Any) -> None:
    for block in model.transformer.resblocks:
        block.attn_mask = None


def softer_mask(model: Any) -> None:
    model.transformer.resblocks[1].attn_mask = torch.full((16, 16), -1.0).triu(1)


def adapter(model: Any) -> None:
    model.visual.transformer.add_module("adapter", nn.Identity())


def dropout(model: Any) -> None:
    model.visual.transformer.resblocks[0].attn.dropout = 0.5


def epsilon(model: Any) -> None:
    model.ln_final.eps = 0.1


def no_projection(model: Any) -> None:
    model.visual.proj = None


def wrapped(model: Any) -> None:
    block = model.visual.transformer.resblocks[0]
    model.visual.transformer.resblocks[0] = nn.Sequential(block)


def parametrized(model: Any) -> None:
    nn.utils.parametrizations.orthogonal(model.transformer.resblocks[0].mlp.c_fc)


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (other_attention, r"transformer.resblocks.0.attn is a Attention"),
        (lambda_for_a_method, "the model has its own encode_image"),
        (method_of_a_block, "resblocks.1 has its own attention"),
        (hook, "ln_final has forward hooks"),
        (hook_before, "ln_final has forward hooks"),
        (other_activation, "gelu is a SiLU"),
        (both_ways_attention, "has attn_mask changed"),
        (softer_mask, "resblocks.1 has attn_mask changed"),
        (adapter, "visual.transformer.adapter is added"),
        (dropout, "has dropout changed"),
        (epsilon, "ln_final has eps changed"),
        (no_projection, "missing|lacks|visual.proj"),
        (wrapped, "do not fit its configuration|is a Sequential"),
        (parametrized, "do not fit its configuration|is a Parametrized"),
    ],
)
def test_a_patched_model_is_refused(patch: Callable[[Any], None], said: str) -> None:
    model = draw(TINY_VIT)
    patch(model)
    with pytest.raises(hfclip.OptimizationError, match=said) as refusal:
        hfclip.optimize(model)
    assert "model itself" in str(refusal.value)


def test_neither_a_subclass_nor_a_wrapper_is_taken_for_a_clip() -> None:
    class Doubled(hfclip.CLIP):
        def encode_image(self, image: Tensor) -> Tensor:
            return 2 * super().encode_image(image)

    model: Any = Doubled(**TINY_VIT.to_dict())
    others: list[Any] = [model, nn.DataParallel(draw(TINY_VIT)), "ViT-B/32"]
    for given in others:
        with pytest.raises(hfclip.OptimizationError, match="not a subclass or a wrapper"):
            hfclip.optimize(given)


def test_a_method_patched_into_a_class_is_detected_by_its_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = hfclip.CLIP.encode_text
    monkeypatch.setattr(hfclip.CLIP, "encode_text", lambda self, text: 1.01 * usual(self, text))
    with pytest.raises(hfclip.OptimizationError, match=r"differ from the model's by 9.9e-03"):
        hfclip.optimize(drawn_once(TINY_VIT))


def test_changes_without_effect_on_results_are_accepted() -> None:
    model: Any = draw(TINY_RESNET)
    model.visual.relu1.inplace = False
    model.note = "fine-tuned on birds"
    assert hfclip.optimize(model).measured.difference < 1e-5


@pytest.mark.parametrize("precision", STATED)
def test_the_measured_accuracy_is_within_the_stated_bound(precision: Precision) -> None:
    fast = hfclip.optimize(drawn_once(TINY_VIT), precision)
    assert fast.precision == precision
    assert fast.stated == STATED[precision]
    assert 0 < fast.measured.difference < fast.stated.difference
    assert fast.stated.cosine < fast.measured.cosine < 1
    assert f"ViT, 2 blocks of width 64, patch 16; {precision}" in repr(fast)


@pytest.mark.parametrize(
    "found", [Accuracy(2.0, 1.0), Accuracy(0.0, 0.9), Accuracy(*[float("nan")] * 2)]
)
def test_both_measures_of_accuracy_must_be_within_their_bounds(found: Accuracy) -> None:
    assert Accuracy(0.5, 0.99).is_within(Accuracy(1.0, 0.99))
    assert not found.is_within(Accuracy(1.0, 0.99))


def test_less_precise_kernels_are_refused_where_more_is_stated() -> None:
    with pytest.raises(hfclip.OptimizationError, match="Choose a more precise dtype"):
        inference._build(drawn_once(TINY_VIT), "float32", plain_toolbox(torch.bfloat16))


def test_nan_weights_are_refused() -> None:
    model = draw(TINY_VIT)
    model.text_projection[0, 0] = float("nan")
    with pytest.raises(hfclip.OptimizationError, match="differ from the model's by nan"):
        hfclip.optimize(model, "int8")


def test_an_unknown_dtype_is_refused() -> None:
    dtype: Any = torch.float16
    with pytest.raises(ValueError, match="expected one of float32, bfloat16, int8"):
        hfclip.optimize(drawn_once(TINY_VIT), dtype)


def test_plain_torch_computes_in_floating_point_on_a_gpu() -> None:
    toolbox = onednn.toolbox("bfloat16", torch.device("cuda"))
    assert all(isinstance(kernels, PlainKernels) for kernels in toolbox)
    assert {kernels.dtype for kernels in toolbox} == {torch.bfloat16}
    with pytest.raises(ValueError, match="int8 needs a CPU"):
        onednn.toolbox("int8", torch.device("cuda"))


NEITHER: dict[str, Any] = {"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False}
VNNI = NEITHER | {"avx512_vnni": True}
BOTH = VNNI | {"avx512_bf16": True}
ARM: dict[str, Any] = {"architecture": "aarch64"}


@pytest.mark.parametrize(
    ("found", "precision", "blocks", "rest"),
    [
        (NEITHER, "float32", "float32", "float32"),
        (NEITHER, "bfloat16", "float32", "float32"),
        (NEITHER, "int8", "float32", "float32"),
        (VNNI, "bfloat16", "float32", "float32"),
        (VNNI, "int8", "int8", "float32"),
        (BOTH, "float32", "float32", "float32"),
        (BOTH, "bfloat16", "bfloat16", "bfloat16"),
        (BOTH, "int8", "int8", "bfloat16"),
        (ARM, "int8", "int8", "bfloat16"),
        ({}, "bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_a_dtype_without_cpu_instructions_is_replaced_by_a_more_precise_one(
    found: dict[str, Any],
    precision: Precision,
    blocks: Precision,
    rest: Precision,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    monkeypatch.setattr(onednn, "_packs", lambda _dtype: True)
    monkeypatch.setattr(onednn, "_quantizes", lambda: True)
    toolbox = onednn.toolbox(precision, CPU)
    assert [kernels.precision for kernels in toolbox] == [blocks, blocks, rest]


def test_the_dtype_that_computes_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: NEITHER, raising=False)
    model = drawn_once(TINY_VIT)
    fast = hfclip.optimize(model, "int8")
    assert (fast.precision, fast.computes_in) == ("int8", "float32")
    assert "int8 computed in float32, difference" in repr(fast)
    assert fast.measured.difference < 1e-5
    assert "float32, difference" in repr(hfclip.optimize(model))


@pytest.fixture
def every_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a processor with instructions for every dtype."""
    monkeypatch.setattr(onednn, "has_instructions", lambda _precision: True)


@pytest.fixture
def forget_probes() -> Iterator[None]:
    """Clears the cached checks of the operators before and after a test."""
    caches = (onednn._packs, onednn._quantizes)
    for found in caches:
        found.cache_clear()
    yield
    for found in caches:
        found.cache_clear()


@pytest.mark.usefixtures("forget_probes", "every_instruction")
@pytest.mark.parametrize("precision", STATED)
def test_plain_torch_replaces_missing_operators(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise AttributeError(name)

    monkeypatch.setattr(onednn, "_operator", missing)
    toolbox = onednn.toolbox(precision, CPU)
    assert all(isinstance(kernels, PlainKernels) for kernels in toolbox)
    assert {kernels.dtype for kernels in toolbox} == {DTYPES[precision]}
    assert hfclip.optimize(drawn_once(TINY_VIT), precision).measured.is_within(STATED[precision])


@pytest.mark.usefixtures("forget_probes", "every_instruction")
@pytest.mark.parametrize(
    ("broken", "precision"),
    [
        ("mkldnn::_linear_pointwise", "float32"),
        ("mkldnn::_convolution_pointwise", "float32"),
        ("onednn::qlinear_pointwise", "int8"),
    ],
)
def test_an_operator_with_wrong_results_is_not_used(
    broken: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = onednn._operator

    class Wrong:
        def __init__(self, right: Any) -> None:
            self.right = right

        def __call__(self, *operands: Any) -> Tensor:
            return self.right(*operands) * 1.2  # type: ignore[no-any-return]

        def binary(self, *operands: Any) -> Tensor:
            return self.right.binary(*operands)  # type: ignore[no-any-return]

    assert isinstance(onednn.toolbox(precision, CPU), Toolbox)
    right = [type(kernels) for kernels in onednn.toolbox(precision, CPU)]
    onednn._packs.cache_clear()
    onednn._quantizes.cache_clear()
    monkeypatch.setattr(
        onednn, "_operator", lambda name: Wrong(usual(name)) if name == broken else usual(name)
    )
    found = [type(kernels) for kernels in onednn.toolbox(precision, CPU)]
    assert found != right
    assert found[0] is not right[0]


def test_8_bit_quantization_keeps_zero_and_both_extremes() -> None:
    x = torch.tensor([[-0.5, 0.0, 0.25, 2.04]])
    integers, scale, zero = onednn.quantize(x.clone())
    assert (integers.tolist(), zero) == ([[0, 50, 75, 254]], 50)
    assert scale == pytest.approx(0.01)
    for values in ([[3.0, 5.0]], [[-3.0, -5.0]], [[0.0, 0.0]], [[-1e-30, 1e30]], [[1e-45, 0.0]]):
        x = torch.tensor(values)
        integers, scale, zero = onednn.quantize(x.clone())
        back = (integers.float() - zero) * scale
        assert (back - x).abs().max() <= 0.51 * scale


def test_an_image_with_infinity_gives_nan_features() -> None:
    model = drawn_once(TINY_VIT)
    images = images_for(model, 1)
    images[0, 0, 0, 0] = float("inf")
    for precision in STATED:
        assert hfclip.optimize(model, precision).encode_image(images).isnan().all(), precision


WORDINGS = ("a handwritten {}", "an image of the figure {}")


@pytest.fixture(scope="module")
def digit_reader() -> hfclip.CLIP:
    return hfclip.load("digits", device="cpu")[0]


@pytest.fixture(scope="module")
def held_out() -> digits.Split:
    return digits.load_split()[1]


@pytest.fixture(scope="module")
def expected_accuracies(digit_reader: hfclip.CLIP, held_out: digits.Split) -> list[float]:
    return accuracies(digit_reader, held_out)


def accuracies(model: Any, held_out: digits.Split) -> list[float]:
    """Returns the accuracy for each wording alone."""
    return [digits.accuracy(model, held_out, digits.WORDS, (wording,)) for wording in WORDINGS]


@pytest.mark.parametrize("precision", STATED)
def test_optimized_models_classify_digits_nearly_as_well(
    digit_reader: hfclip.CLIP,
    held_out: digits.Split,
    expected_accuracies: list[float],
    precision: Precision,
) -> None:
    fast = hfclip.optimize(digit_reader, precision)
    found = accuracies(fast, held_out)
    for ours, expected in zip(found, expected_accuracies, strict=True):
        assert ours > expected - 0.01
