"""The same weights give the features of clip-anytorch, open_clip and transformers."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from drawing import quickly_drawn, undrawn, without_memory
from torch import Tensor

import hfclip
from hfclip.config import ClipConfig
from hfclip.layouts.transformers import from_transformers, to_transformers
from hfclip.network.clip import convert_weights
from hfclip.releases import RELEASES

SMALL_VIT = ClipConfig(32, 64, 2, 64, 16, 77, 49408, 64, 1, 2)
SMALL_RESNET = ClipConfig(32, 64, (1, 2, 1, 1), 16, None, 77, 49408, 64, 1, 2)
FULL_VIT = RELEASES["ViT-B/32"].config
FULL_RESNET = RELEASES["RN50"].config
CAPTIONS = ["a cat", "two dogs in the snow, seen from above", "", "an x-ray of a hand " * 9]

every_config = pytest.mark.parametrize(
    "config",
    [SMALL_VIT, SMALL_RESNET, FULL_VIT, FULL_RESNET],
    ids=["small ViT", "small ResNet", "ViT-B/32", "RN50"],
)
# The same models, whose features are computed once: see the fixture `features`.
every_feature = pytest.mark.parametrize(
    "features",
    [SMALL_VIT, SMALL_RESNET, FULL_VIT, FULL_RESNET],
    ids=["small ViT", "small ResNet", "ViT-B/32", "RN50"],
    indirect=True,
)
every_vit = pytest.mark.parametrize(
    "features", [SMALL_VIT, FULL_VIT], ids=["small ViT", "ViT-B/32"], indirect=True
)


def random_model(config: ClipConfig) -> hfclip.CLIP:
    """Returns a model with random values in every tensor, including BatchNorm statistics."""
    torch.manual_seed(3)
    model = quickly_drawn(lambda: hfclip.CLIP(**config.to_dict()))
    for name, tensor in model.state_dict().items():
        if name.endswith(("bn1.weight", "bn2.weight", "bn3.weight", "running_var")):
            tensor.uniform_(0.5, 1.0)
        elif name.endswith((".bias", "running_mean")):
            tensor.normal_(std=0.1)
    return model


def clip_twin(ours: hfclip.CLIP, clip: ModuleType) -> Any:
    """Builds clip-anytorch's model without its build_model, which rounds weights to float16."""
    theirs = undrawn(lambda: clip.model.CLIP(*list(ours.config.to_dict().values())[:10]))
    theirs.load_state_dict(ours.state_dict(), assign=True)
    return theirs


def batch(config: ClipConfig) -> tuple[Tensor, Tensor]:
    """Returns pictures and captions. A model of full size gets half as many, to save time."""
    is_large = config.transformer_width >= 512
    images = torch.randn(1 if is_large else 2, 3, config.image_resolution, config.image_resolution)
    return images, hfclip.tokenize(CAPTIONS[1::2] if is_large else CAPTIONS, truncate=True)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    difference = (ours - theirs).norm() / theirs.norm()
    assert difference < 1e-5, f"relative difference {difference:.1e}"


@dataclass(frozen=True)
class Features:
    """A model, a batch and what the model computes from it. Tests share all and change nothing."""

    model: hfclip.CLIP
    images: Tensor
    tokens: Tensor
    of_images: Tensor
    of_texts: Tensor
    logits: Tensor  # of the first image and the first two texts

    def assert_equal(
        self,
        image_features: Callable[[Tensor], Tensor],
        text_features: Callable[[Tensor], Tensor],
        logits: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """Compares with the results of another model's functions."""
        with torch.no_grad():
            assert_close(self.of_images, image_features(self.images))
            assert_close(self.of_texts, text_features(self.tokens))
            # Fewer inputs, because the features above are most of the work of the logits.
            assert_close(self.logits, logits(self.images[:1], self.tokens[:2]))


@torch.no_grad()
def features_of(model: hfclip.CLIP) -> Features:
    images, tokens = batch(model.config)
    of_images, of_texts = model.encode_image(images), model.encode_text(tokens)
    return Features(model, images, tokens, of_images, of_texts, model(images[:1], tokens[:2])[0])


@pytest.fixture(scope="module")
def features(request: pytest.FixtureRequest) -> Features:
    """Returns the features of a random model of the configuration that is the parameter."""
    return features_of(random_model(request.param))


def assert_same_model(
    ours: hfclip.CLIP,
    image_features: Callable[[Tensor], Tensor],
    text_features: Callable[[Tensor], Tensor],
    logits: Callable[[Tensor, Tensor], Tensor],
) -> None:
    features_of(ours).assert_equal(image_features, text_features, logits)


@every_feature
def test_clip_anytorch_gives_the_same_features(features: Features, clip: ModuleType) -> None:
    theirs = clip_twin(features.model, clip)
    features.assert_equal(theirs.encode_image, theirs.encode_text, lambda *batch: theirs(*batch)[0])


@every_feature
def test_open_clip_gives_the_same_features(features: Features) -> None:
    import open_clip

    config = features.model.config
    vision = {
        "image_size": config.image_resolution,
        "layers": config.vision_layers,
        "width": config.vision_width,
        "patch_size": config.vision_patch_size,
    }
    text = {
        "context_length": config.context_length,
        "vocab_size": config.vocab_size,
        "width": config.transformer_width,
        "heads": config.transformer_heads,
        "layers": config.transformer_layers,
    }
    theirs = undrawn(lambda: open_clip.CLIP(config.embed_dim, vision, text, quick_gelu=True))
    theirs.load_state_dict(features.model.state_dict(), assign=True)
    features.assert_equal(
        theirs.encode_image,
        theirs.encode_text,
        lambda *batch: theirs.get_logits(*batch)[0],
    )


@every_vit
def test_transformers_gives_the_same_features(features: Features) -> None:
    from transformers.initialization import no_init_weights

    with no_init_weights():  # transformers replaces the functions that `undrawn` skips
        theirs = undrawn(lambda: transformers_model(features.model.config))
    weights = to_transformers(features.model.state_dict())
    theirs.load_state_dict(weights, strict=True, assign=True)

    def text_features(tokens: Tensor) -> Tensor:
        # Without an attention mask it uses only the causal mask, like OpenAI.
        found: Tensor = theirs.get_text_features(input_ids=tokens.long()).pooler_output
        return found

    def logits(images: Tensor, tokens: Tensor) -> Tensor:
        result: Tensor = theirs(input_ids=tokens.long(), pixel_values=images).logits_per_image
        return result

    features.assert_equal(
        lambda images: theirs.get_image_features(pixel_values=images).pooler_output,
        text_features,
        logits,
    )


def transformers_model(config: ClipConfig, activation: str = "quick_gelu") -> Any:
    from transformers import CLIPConfig, CLIPModel

    def stack(width: int, layers: Any, heads: int) -> dict[str, Any]:
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "projection_dim": config.embed_dim,
            "hidden_act": activation,
        }

    text = stack(config.transformer_width, config.transformer_layers, config.transformer_heads)
    vision = stack(config.vision_width, config.vision_layers, config.vision_heads)
    vision |= {
        "image_size": config.image_resolution,
        "patch_size": config.vision_patch_size or 0,
    }
    both = CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.embed_dim)
    model: Any = CLIPModel(both)
    return model.eval()


def test_the_transformers_names_convert_back_to_the_same_weights() -> None:
    state = random_model(SMALL_VIT).state_dict()
    back = from_transformers(to_transformers(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.parametrize("name", RELEASES)
def test_names_shapes_and_order_equal_those_of_clip(name: str, clip: ModuleType) -> None:
    config = RELEASES[name].config
    numbers = list(config.to_dict().values())[:10]
    ours = without_memory(lambda: hfclip.CLIP(*numbers))
    theirs = without_memory(lambda: clip.model.CLIP(*numbers))
    ours_state = [(key, value.shape) for key, value in ours.state_dict().items()]
    assert ours_state == [(key, value.shape) for key, value in theirs.state_dict().items()]
    ours_parameters = [key for key, _ in ours.named_parameters()]
    assert ours_parameters == [key for key, _ in theirs.named_parameters()]
    ours_modules = [(key, type(module).__name__) for key, module in ours.named_modules()]
    assert ours_modules == [(key, type(module).__name__) for key, module in theirs.named_modules()]


@every_config
def test_the_same_tensors_are_in_half_precision(config: ClipConfig, clip: ModuleType) -> None:
    ours = random_model(config)
    theirs = undrawn(lambda: clip.model.build_model(ours.state_dict()))
    convert_weights(ours)
    ours_state, theirs_state = ours.state_dict(), theirs.state_dict()
    assert {key: value.dtype for key, value in ours_state.items()} == {
        key: value.dtype for key, value in theirs_state.items()
    }
    assert all(torch.equal(value, theirs_state[key]) for key, value in ours_state.items())


@pytest.mark.parametrize("config", [SMALL_VIT, SMALL_RESNET], ids=["ViT", "ResNet"])
def test_gradients_equal_those_of_clip(config: ClipConfig, clip: ModuleType) -> None:
    ours = random_model(config)
    theirs = clip_twin(ours, clip)
    images, tokens = batch(config)
    for model in (ours, theirs):
        model(images, tokens)[0].softmax(dim=-1)[:, 0].sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        gradient = expected[name].grad
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-6), name
