import copy
import math
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import hfclip
from hfclip.checkpoints.read import Checkpoint
from hfclip.network.clip import convert_weights
from hfclip.network.layers import LayerNorm, QuickGELU, ResidualAttentionBlock
from hfclip.network.resnet import AttentionPool2d

NUMBERS = (8, 32, 1, 64, 16, 6, 50, 64, 1, 1)


def filled(module: torch.nn.Module) -> Any:
    """Sets the weights of a module by position, without random numbers."""
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                ramp = torch.arange(tensor.numel(), dtype=torch.float64)
                tensor.copy_((ramp.sin() * 0.3 + 0.1).view(tensor.shape))
    return module.eval()


def checkpoint_of(model: hfclip.CLIP) -> Checkpoint:
    return Checkpoint(Path("memory"), "memory", model.config, model.state_dict())


def test_quick_gelu_has_known_values() -> None:
    values = QuickGELU()(torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0]))
    assert values.tolist() == pytest.approx([-0.0643414, -0.1496116, 0.0, 0.8457958, 2.9819288])


def test_layer_norm_of_half_precision_is_computed_in_float32() -> None:
    norm = LayerNorm(4)
    x = torch.tensor([[60000.0, 1.0, 2.0, 3.0]], dtype=torch.float16)
    normalised = norm(x)
    assert normalised.dtype == torch.float16
    assert normalised[0].tolist() == pytest.approx([1.7324, -0.5776, -0.5776, -0.5771], abs=1e-3)


def test_a_block_of_width_four_gives_known_numbers() -> None:
    mask = torch.full((5, 5), float("-inf")).triu(1)
    block = filled(ResidualAttentionBlock(4, 2, mask))
    x = torch.linspace(-1, 1, 12).view(3, 1, 4)
    with torch.no_grad():
        out = block(x)
    # The output of OpenAI's block for these weights.
    expected = [
        [0.2354688, -0.4801226, 1.2480537, -0.2353601],
        [0.9627416, 0.2471502, 1.9753263, 0.4919126],
        [1.6900142, 0.9744229, 2.7025990, 1.2191854],
    ]
    assert torch.allclose(out[:, 0], torch.tensor(expected), atol=1e-6)


def test_later_tokens_do_not_change_a_masked_position() -> None:
    mask = torch.full((5, 5), float("-inf")).triu(1)
    block = filled(ResidualAttentionBlock(4, 2, mask))
    x = torch.linspace(-1, 1, 12).view(3, 1, 4)
    with torch.no_grad():
        assert torch.allclose(block(x)[:2], block(x[:2]), atol=1e-6)


def test_attention_pooling_of_a_constant_grid_needs_no_attention() -> None:
    pool = filled(AttentionPool2d(2, 4, 2, 3))
    with torch.no_grad():
        pool.positional_embedding.zero_()
        pooled = pool(torch.ones(1, 4, 2, 2))
        value = pool.c_proj(pool.v_proj(torch.ones(1, 4)))
    assert torch.allclose(pooled, value, atol=1e-6)


@pytest.fixture
def model() -> hfclip.CLIP:
    torch.manual_seed(0)
    return hfclip.CLIP(*NUMBERS).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


TEXTS = torch.tensor([[48, 3, 4, 49, 0, 0], [48, 7, 49, 0, 0, 0]], dtype=torch.int32)


@torch.no_grad()
def test_logits_are_scaled_cosine_similarities(model: hfclip.CLIP, images: Tensor) -> None:
    per_image, per_text = model(images, TEXTS)
    cosines = torch.nn.functional.cosine_similarity(
        model.encode_image(images)[:, None], model.encode_text(TEXTS)[None], dim=-1
    )
    assert torch.allclose(per_image, cosines / 0.07, atol=1e-4)
    assert torch.equal(per_text, per_image.t())


@torch.no_grad()
def test_padding_after_the_end_token_changes_nothing(model: hfclip.CLIP) -> None:
    whole, cut = model.encode_text(TEXTS), model.encode_text(TEXTS[:, :4])
    assert torch.allclose(whole, cut, atol=1e-6)


@torch.no_grad()
def test_features_are_writable(model: hfclip.CLIP, images: Tensor) -> None:
    features = model.encode_image(images)
    features /= features.norm(dim=-1, keepdim=True)
    assert features.norm(dim=-1).tolist() == pytest.approx([1.0, 1.0])


def test_forward_calls_encode_image_and_encode_text(model: hfclip.CLIP, images: Tensor) -> None:
    model.encode_image = lambda image: torch.ones(len(image), 8)  # type: ignore[method-assign]
    model.encode_text = lambda text: torch.ones(len(text), 8)  # type: ignore[method-assign]
    assert model(images, TEXTS)[0].flatten().tolist() == pytest.approx([1 / 0.07] * 4, rel=1e-4)


def test_the_mask_is_causal_and_a_plain_attribute(model: hfclip.CLIP) -> None:
    mask = model.transformer.resblocks[0].attn_mask
    assert isinstance(mask, Tensor)
    assert mask[0].tolist() == [0.0] + [-math.inf] * 5
    assert mask[5].tolist() == [0.0] * 6
    assert not any("attn_mask" in key for key in model.state_dict())


def test_training_works_after_a_first_call_in_inference_mode(images: Tensor) -> None:
    model = hfclip.CLIP(*NUMBERS).double()
    with torch.inference_mode():
        model(images, TEXTS)
    model(images, TEXTS)[0].sum().backward()
    assert model.token_embedding.weight.grad is not None


def test_loading_weights_draws_no_random_numbers(model: hfclip.CLIP, images: Tensor) -> None:
    checkpoint = checkpoint_of(model)
    before = torch.get_rng_state()
    rebuilt = hfclip.CLIP.from_checkpoint(checkpoint)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(rebuilt(images, TEXTS)[0], model(images, TEXTS)[0])
    assert not rebuilt.training


def test_loaded_weights_are_not_copied(model: hfclip.CLIP) -> None:
    checkpoint = checkpoint_of(model)
    rebuilt = hfclip.CLIP.from_checkpoint(checkpoint)
    convert_weights(rebuilt, torch.float32)
    for key, tensor in rebuilt.state_dict().items():
        assert tensor.data_ptr() == checkpoint.tensors[key].data_ptr(), key


def test_another_thread_can_initialise_weights_during_a_load(model: hfclip.CLIP) -> None:
    from hfclip.network.initialization import NoInitialization

    drawn: list[Tensor] = []
    with NoInitialization():
        thread = threading.Thread(
            target=lambda: drawn.append(torch.nn.Linear(64, 64).weight.detach())
        )
        thread.start()
        thread.join()
    assert 0.05 < drawn[0].std().item() < 0.1


def test_half_precision_keeps_norms_and_embeddings_in_float32(model: hfclip.CLIP) -> None:
    convert_weights(model)
    halves = {key for key, value in model.state_dict().items() if value.dtype == torch.float16}
    assert "visual.conv1.weight" in halves
    assert "visual.proj" in halves
    assert "text_projection" in halves
    assert "transformer.resblocks.0.attn.in_proj_bias" in halves
    assert not any(
        word in key for key in halves for word in ("ln_", "embedding", "logit_scale", "norm")
    )
    assert model.dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@torch.no_grad()
def test_other_precisions_are_close_to_float32(
    dtype: torch.dtype, model: hfclip.CLIP, images: Tensor
) -> None:
    expected = model(images, TEXTS)[0]
    convert_weights(model, dtype)
    logits = model(images, TEXTS)[0]
    assert model.encode_image(images).dtype == dtype
    assert torch.allclose(logits.float(), expected, atol=0.3 if dtype == torch.bfloat16 else 0.05)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(clone: Any, model: hfclip.CLIP, images: Tensor) -> None:
    twin = clone(model)
    assert torch.equal(twin(images, TEXTS)[0], model(images, TEXTS)[0])
    assert twin.config == model.config


def test_a_saved_model_loads_as_the_same_model(
    tmp_path: Any, model: hfclip.CLIP, images: Tensor
) -> None:
    model.save_pretrained(tmp_path)
    again = hfclip.CLIP.from_pretrained(tmp_path)
    assert torch.equal(again(images, TEXTS)[0], model(images, TEXTS)[0])
    assert again.config == model.config


def test_a_subclass_with_positional_arguments_loads(
    tmp_path: Any, model: hfclip.CLIP, images: Tensor
) -> None:
    class Prompted(hfclip.CLIP):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.calls = 0

        def encode_image(self, image: Tensor) -> Tensor:
            self.calls += 1
            return super().encode_image(image)

    model.save_pretrained(tmp_path)
    loaded = Prompted.from_pretrained(tmp_path)
    assert torch.equal(loaded(images, TEXTS)[0], model(images, TEXTS)[0])
    assert loaded.calls == 1
