"""The state of a CLIP: on the meta device, with a head, and with activations recomputed."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT, draw
from torch import Tensor, nn

import hfclip
from hfclip.config import ClipConfig

both_kinds = pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET], ids=["ViT", "ResNet"])


def inputs_for(config: ClipConfig, count: int = 3) -> tuple[Tensor, Tensor]:
    side, numbers = config.image_resolution, torch.Generator().manual_seed(1)
    text = torch.randint(config.vocab_size - 1, (count, config.context_length), generator=numbers)
    text[:, 5] = config.vocab_size - 1
    return torch.randn(count, 3, side, side, generator=numbers), text


@pytest.fixture
def meta_by_default() -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def filled(shell: hfclip.CLIP, model: hfclip.CLIP) -> hfclip.CLIP:
    shell.to_empty(device="cpu").load_state_dict(model.state_dict())
    return shell.eval()


@torch.no_grad()
@pytest.mark.parametrize("is_called", [False, True])
@both_kinds
def test_a_model_built_on_the_meta_device_computes_after_loading_weights(
    config: ClipConfig, is_called: bool
) -> None:
    model, (images, text) = draw(config), inputs_for(config)
    shell: Any
    with torch.device("meta"):
        shell = hfclip.CLIP(**config.to_dict())
    assert all(tensor.is_meta for tensor in shell.state_dict().values())
    if is_called:  # to get the shapes
        assert shell(images.to("meta"), text.to("meta"))[0].is_meta
    found = filled(shell, model)(images, text)[0]
    assert torch.equal(found, model(images, text)[0])
    assert shell.transformer.resblocks[0].attn_mask[0, 1] == -torch.inf
    assert hfclip.optimize(shell).measured.difference < 1e-5


@torch.no_grad()
def test_a_model_built_with_meta_as_default_device_computes_the_same(meta_by_default: None) -> None:
    config = TINY_VIT
    shell = hfclip.CLIP(**config.to_dict())
    torch.set_default_device(None)
    model, text = draw(config), inputs_for(config)[1]
    assert torch.equal(filled(shell, model).encode_text(text), model.encode_text(text))


class Classifier(hfclip.CLIP):
    """A CLIP with a head and an additional argument with a default."""

    def __init__(self, *args: Any, classes: int = 5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head = nn.Linear(self.config.embed_dim, classes)
        self.register_buffer("calls", torch.tensor(3))


def headed(config: ClipConfig, classes: int = 5) -> Classifier:
    torch.manual_seed(0)
    return Classifier(**config.to_dict(), classes=classes).eval()


@both_kinds
def test_a_subclass_with_a_head_is_saved_and_loaded_by_its_class(
    config: ClipConfig, tmp_path: Path
) -> None:
    model = headed(config)
    model.save_pretrained(tmp_path / "headed")
    again = Classifier.from_pretrained(tmp_path / "headed")
    assert list(again.state_dict()) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_from_pretrained_passes_arguments_to_the_subclass(tmp_path: Path) -> None:
    model = headed(TINY_VIT, classes=7)
    model.save_pretrained(tmp_path / "headed")
    again = Classifier.from_pretrained(tmp_path / "headed", classes=7)
    assert torch.equal(again.head.weight, model.head.weight)
    with pytest.raises(
        hfclip.WeightsMismatchError, match=r"head\.bias is \(7,\) instead of \(5,\)"
    ):
        Classifier.from_pretrained(tmp_path / "headed")


def test_a_plain_clip_names_the_unexpected_head(tmp_path: Path) -> None:
    headed(TINY_VIT).save_pretrained(tmp_path / "headed")
    with pytest.raises(hfclip.WeightsMismatchError, match=r"head\.bias.*head\.weight"):
        hfclip.CLIP.from_pretrained(tmp_path / "headed")
    draw(TINY_VIT).save_pretrained(tmp_path / "plain")
    with pytest.raises(
        hfclip.WeightsMismatchError, match=r"missing calls, head\.weight, head\.bias;"
    ):
        Classifier.from_pretrained(tmp_path / "plain")


def test_a_plain_clip_with_an_added_module_is_not_saved(tmp_path: Path) -> None:
    model = draw(TINY_VIT)
    model.add_module("head", nn.Linear(2, 2))
    with pytest.raises(hfclip.WeightsMismatchError, match=r"unexpected head\.weight"):
        model.save_pretrained(tmp_path / "headed")
    assert list(tmp_path.iterdir()) == []


def test_a_subclass_whose_sizes_contradict_its_configuration_is_not_saved(tmp_path: Path) -> None:
    model = headed(TINY_VIT)
    model.text_projection = nn.Parameter(torch.zeros(TINY_VIT.transformer_width, 3))
    with pytest.raises(hfclip.WeightsMismatchError, match="text_projection is"):
        model.save_pretrained(tmp_path / "headed")


def test_a_path_with_a_tilde_is_written_and_read_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model = draw(TINY_VIT)
    model.save_pretrained("~/models/mine")
    assert (tmp_path / "models" / "mine" / "config.json").is_file()
    assert not Path("~").exists()
    again = hfclip.CLIP.from_pretrained("~/models/mine")
    assert torch.equal(again.text_projection, model.text_projection)
    assert hfclip.load("~/models/mine", device="cpu")[0].config == model.config


@pytest.mark.parametrize("training", [False, True])
@both_kinds
def test_recomputed_activations_give_the_same_gradients_and_statistics(
    config: ClipConfig, training: bool
) -> None:
    usual = draw(config).train(training)
    saving = copy.deepcopy(usual)
    saving.set_grad_checkpointing()
    images, text = inputs_for(config)
    for model in (usual, saving):
        logits, _ = model(images, text)
        nn.functional.cross_entropy(logits, torch.arange(3)).backward()  # type: ignore[no-untyped-call]
    for (name, ours), theirs in zip(saving.named_parameters(), usual.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6), name
    for (name, ours), theirs in zip(
        saving.state_dict().items(), usual.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name  # the running statistics are updated once


@both_kinds
def test_recomputing_keeps_few_activations_and_is_off_by_default(config: ClipConfig) -> None:
    model, (images, text) = draw(config).train(), inputs_for(config, 8)

    def kept() -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(images, text)
        weights = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
        return sum(size for address, size in sizes.items() if address not in weights)

    names = list(model.state_dict()), [name for name, _ in model.named_modules()]
    before = kept()
    model.set_grad_checkpointing()
    during = kept()
    model.set_grad_checkpointing(False)
    assert during < 0.6 * before
    assert kept() == before
    assert (list(model.state_dict()), [name for name, _ in model.named_modules()]) == names


@torch.no_grad()
def test_a_model_that_recomputes_is_scripted_and_made_fast() -> None:
    from hfclip.network.scripted import script

    model, (images, text) = draw(TINY_VIT), inputs_for(TINY_VIT)
    expected = model(images, text)[0]
    model.set_grad_checkpointing()
    assert torch.equal(model(images, text)[0], expected)
    assert torch.allclose(script(model)(images, text)[0], expected, atol=1e-4)
    assert hfclip.optimize(model).measured.difference < 1e-5


def test_forward_hooks_run_once_per_block_when_activations_are_recomputed() -> None:
    model: Any = draw(TINY_VIT)
    images, _ = inputs_for(TINY_VIT)
    model.set_grad_checkpointing()
    calls: list[int] = []
    for depth, block in enumerate(model.visual.transformer.resblocks):
        block.register_forward_hook(lambda *_, depth=depth: calls.append(depth))
    model.encode_image(images).sum().backward()
    assert calls == list(range(len(model.visual.transformer.resblocks)))
