"""Training encodes with fewer operations than the model, unless the model was changed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from coloured import CONFIG
from torch import Tensor, nn

from hfclip.config import Activation
from hfclip.errors import ShapeError, UnknownTokenError
from hfclip.model import CLIP
from hfclip.network.layers import QuickGELU, ResidualAttentionBlock
from hfclip.text.tokenizer import tokenize
from hfclip.training import packed
from hfclip.training.operations import mlp
from hfclip.training.packed import encoders

TEXTS = ["a cat", "", "two dogs that run on a beach", "a dog", "an owl at night"]
BOUND = 1e-5


def make_model(activation: Activation = "quick_gelu") -> CLIP:
    values = CONFIG.to_dict() | {
        "vision_layers": 3,
        "transformer_layers": 2,
        "transformer_heads": 2,
        "activation": activation,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIP(**values).eval()


@pytest.fixture
def model() -> CLIP:
    return make_model()


def blocks(tower: Any) -> Any:
    return tower.transformer.resblocks


def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def results(model: CLIP, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Iterator[Tensor]:
    """Yields the features and the gradients of a function of the features."""
    model.zero_grad()
    features = encode(inputs)
    yield features.detach()
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward((features * weights).sum())
    for parameter in model.parameters():
        if parameter.grad is not None:
            yield parameter.grad.clone()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("tower", [0, 1], ids=["images", "texts"])
def test_features_and_gradients_are_those_of_the_model(tower: int, activation: Activation) -> None:
    model = make_model(activation)
    inputs = (images(), tokenize(TEXTS))[tower]
    plain = (model.encode_image, model.encode_text)[tower]
    encode = encoders(model, bf16=False)[tower]
    assert not isinstance(encode, packed._Plain)
    found, expected = list(results(model, encode, inputs)), list(results(model, plain, inputs))
    assert len(found) == len(expected) > 20
    scale = max(float(each.norm()) for each in expected)
    for own, other in zip(found, expected, strict=True):
        assert float((own - other).norm()) < BOUND * max(float(other.norm()), scale / 100)


@pytest.mark.parametrize("tower", [0, 1], ids=["images", "texts"])
def test_bfloat16_differs_from_float32_as_autocast_does(tower: int, model: CLIP) -> None:
    inputs = (images(), tokenize(TEXTS))[tower]
    plain = (model.encode_image, model.encode_text)[tower]
    exact = list(results(model, plain, inputs))
    errors = []
    for encode in (encoders(model, bf16=True)[tower], packed._Plain(plain, bf16=True)):
        found = list(results(model, encode, inputs))
        assert {each.dtype for each in found} == {torch.float32}
        errors.append(
            max(float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))
        )
    assert 1e-5 < errors[0] < 2 * errors[1]


def test_no_layer_computes_padding_and_the_last_block_only_what_is_pooled(
    model: CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    plain: Any = mlp

    def counted(x: Tensor, *args: object, **options: object) -> Tensor:
        rows.append(len(x))
        result: Tensor = plain(x, *args, **options)
        return result

    monkeypatch.setattr(packed, "mlp", counted)
    tokens = tokenize(TEXTS)
    encode_image, encode_text = encoders(model, bf16=False)
    encode_text(tokens)
    assert rows == [int((tokens.argmax(dim=1) + 1).sum()), len(TEXTS)]
    rows.clear()
    encode_image(images())
    assert rows == [3 * 5, 3 * 5, 3]


def _hook(model: CLIP, _: pytest.MonkeyPatch) -> None:
    blocks(model.visual)[0].register_forward_hook(lambda *_: None)


def _backward_hook(model: CLIP, _: pytest.MonkeyPatch) -> None:
    blocks(model.visual)[0].mlp.register_full_backward_hook(lambda *_: None)


def _module(model: CLIP, _: pytest.MonkeyPatch) -> None:
    class Other(QuickGELU):
        pass

    blocks(model.visual)[1].mlp.gelu = Other()


def _layer(model: CLIP, _: pytest.MonkeyPatch) -> None:
    blocks(model.visual)[1].mlp.append(nn.Dropout())


def _method(model: CLIP, _: pytest.MonkeyPatch) -> None:
    block = blocks(model.visual)[0]
    block.attention = lambda x: x


def _dropout(model: CLIP, _: pytest.MonkeyPatch) -> None:
    blocks(model.visual)[2].attn.dropout = 0.1


def _recomputing(model: CLIP, _: pytest.MonkeyPatch) -> None:
    blocks(model.visual)[2].grad_checkpointing = True


def _half(model: CLIP, _: pytest.MonkeyPatch) -> None:
    model.visual.half()


IMAGE_CHANGES = [_hook, _backward_hook, _module, _layer, _method, _dropout, _recomputing, _half]


@pytest.mark.parametrize("change", IMAGE_CHANGES)
def test_the_model_itself_encodes_a_tower_that_was_changed(
    model: CLIP, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    change(model, monkeypatch)
    encode_image, encode_text = encoders(model, bf16=False)
    assert isinstance(encode_image, packed._Plain)
    assert not isinstance(encode_text, packed._Plain)


def test_a_hook_sees_what_training_computes(model: CLIP) -> None:
    seen = []
    block = blocks(model)[0]
    block.register_forward_hook(lambda *call: seen.append(call[2].shape))
    encoders(model, bf16=False)[1](tokenize(["a cat", "a dog"], padding="longest"))
    assert seen == [(4, 2, 16)]


def test_another_mask_is_used(model: CLIP) -> None:
    for block in blocks(model):
        block.attn_mask = torch.zeros(77, 77)
    tokens = tokenize(["a cat", "two dogs"])
    encode = encoders(model, bf16=False)[1]
    assert isinstance(encode, packed._Plain)
    torch.testing.assert_close(encode(tokens), model.encode_text(tokens))


@pytest.mark.parametrize("kind", [QuickGELU, ResidualAttentionBlock])
def test_a_method_that_was_replaced_in_a_class_is_used(
    model: CLIP, monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module]
) -> None:
    monkeypatch.setattr(kind, "forward", lambda _, x: x / 2)
    for encode, plain, inputs in zip(
        encoders(model, bf16=False),
        (model.encode_image, model.encode_text),
        (images(), tokenize(TEXTS)),
        strict=True,
    ):
        torch.testing.assert_close(encode(inputs), plain(inputs), atol=0, rtol=0)


def test_a_subclass_encodes_itself() -> None:
    class Own(CLIP):
        def encode_image(self, image: Tensor) -> Tensor:
            return super().encode_image(image) * 2

    model = Own(**CONFIG.to_dict()).eval()
    encode_image, _ = encoders(model, bf16=False)
    torch.testing.assert_close(encode_image(images()), model.encode_image(images()))


def test_wrong_inputs_get_the_errors_of_the_model(model: CLIP) -> None:
    encode_image, encode_text = encoders(model, bf16=False)
    with pytest.raises(ShapeError, match=r"expected floats \(B, 3, 32, 32\)"):
        encode_image(torch.zeros(1, 3, 31, 32))
    with pytest.raises(UnknownTokenError):
        encode_text(torch.tensor([[49406, 49408]]))
    assert encode_text(torch.zeros(0, 77, dtype=torch.int32)).shape == (0, 32)
    assert encode_image(torch.zeros(0, 3, 32, 32)).shape == (0, 32)
