"""Names, arguments, pickles and optimizer states that programs written for `clip` use."""

import copy
import gzip
import inspect
import io
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import hfclip
from hfclip import compat
from hfclip.compat.simple_tokenizer import SimpleTokenizer
from hfclip.errors import UnsafeCheckpointError
from hfclip.network.layers import LayerNorm, ResidualAttentionBlock

from .world import World, silently

MODULES = ["clip", "model", "simple_tokenizer"]
# Names that clip-anytorch's modules import for internal use, and names of types.
_THEIR_IMPORTS = {"packaging", "Any", "Union", "List", "Tuple", "lru_cache", "tqdm"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes `import clip` load hfclip during a test."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "clip"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    compat.install()
    yield
    compat.uninstall()


def own_names(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("__") and not isinstance(value, ModuleType)
    } - _THEIR_IMPORTS


@pytest.mark.parametrize("name", MODULES)
def test_every_name_of_clips_modules_exists(
    name: str, real: ModuleType, standin: ModuleType
) -> None:
    ours = getattr(standin, name)
    assert own_names(getattr(real, name)) - set(vars(ours)) == set()


def test_the_package_has_the_public_names_of_clip(real: ModuleType, standin: ModuleType) -> None:
    public = {name for name in vars(real) if not name.startswith("_")}
    assert public <= set(vars(standin))
    assert standin.clip.__all__ == real.clip.__all__


def functions(module: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            methods = vars(value).items()
            found |= {f"{name}.{k}": v for k, v in methods if inspect.isfunction(v)}
        elif isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
            found[name] = value
    return found


@pytest.mark.parametrize("name", MODULES)
def test_functions_and_methods_take_the_same_arguments(
    name: str, real: ModuleType, standin: ModuleType
) -> None:
    theirs = functions(getattr(real, name))
    assert len(theirs) > 4
    for path, function in theirs.items():
        ours: Any = getattr(standin, name)
        for part in path.split("."):
            ours = getattr(ours, part)
        wanted = list(inspect.signature(function).parameters)
        found = list(inspect.signature(ours).parameters)[: len(wanted)]
        assert found == wanted, path


def test_the_urls_equal_those_that_openai_published(real: ModuleType, standin: ModuleType) -> None:
    assert list(standin.clip._MODELS.items()) == list(real.clip._MODELS.items())


def test_a_loaded_model_is_an_hfclip_model(
    standin: ModuleType, weights: Callable[[str], str]
) -> None:
    model, preprocess = standin.load(weights("vit"), device="cpu")
    assert type(model) is hfclip.CLIP
    assert model.config == hfclip.load(weights("vit"), device="cpu")[0].config
    steps = [type(step).__name__ for step in preprocess.transforms]
    assert steps == ["Resize", "CenterCrop", "function", "ToTensor", "Normalize"]
    assert preprocess.transforms[0].size == 64


def test_a_model_with_another_mean_keeps_it(standin: ModuleType, tmp_path: Path) -> None:
    model = hfclip.CLIP(8, 32, 1, 64, 16, 6, 50, 64, 1, 1, image_mean=(0.1, 0.2, 0.3))
    model.save_pretrained(tmp_path / "mine")
    _, preprocess = standin.load(str(tmp_path / "mine"), device="cpu")
    assert tuple(preprocess.transforms[-1].mean) == (0.1, 0.2, 0.3)


def test_a_squashing_model_is_prepared_as_by_hfclip(standin: ModuleType, tmp_path: Path) -> None:
    model = hfclip.CLIP(8, 32, 1, 64, 16, 6, 50, 64, 1, 1, resize_mode="squash")
    model.save_pretrained(tmp_path / "mine")
    _, ours = hfclip.load(tmp_path / "mine", device="cpu")
    _, preprocess = standin.load(str(tmp_path / "mine"), device="cpu")
    steps = [type(step).__name__ for step in preprocess.transforms]
    assert steps == ["Resize", "function", "ToTensor", "Normalize"]
    image = Image.linear_gradient("L").resize((90, 40))
    assert torch.equal(preprocess(image), ours(image))
    assert not torch.equal(preprocess(image), standin.clip._transform(32)(image))


def test_loading_with_jit_gives_a_script_with_equal_features(
    real: ModuleType, standin: ModuleType, weights: Callable[[str], str], tmp_path: Path
) -> None:
    script, _ = standin.load(weights("vit"), device="cpu", jit=True)
    theirs = silently(lambda: [real.load(weights("vit"), device="cpu")[0]])[0]
    images = torch.randn(2, 3, 64, 64)
    assert isinstance(script, torch.jit.ScriptModule)
    assert script.input_resolution.item() == 64
    assert torch.allclose(script.encode_image(images), theirs.encode_image(images), atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_pickle_of_a_whole_clip_model_loads_with_weights_only_off(
    kind: str,
    real: ModuleType,
    weights: Callable[[str], str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    old = silently(lambda: [real.load(weights(kind), device="cpu")[0]])[0]
    path = tmp_path / "whole.pt"
    torch.save(old, path)
    assert b"clip.model" in path.read_bytes()
    request.getfixturevalue("installed")
    model = torch.load(path, weights_only=False)
    images, tokens = torch.randn(2, 3, 64, 64), hfclip.tokenize(["a cat", "a dog"])
    assert type(model) is hfclip.CLIP
    assert torch.equal(model(images, tokens)[0], old(images, tokens)[0])
    with pytest.raises(UnsafeCheckpointError):
        hfclip.load(path)


def steps(world: World, model: Any, optimizer: Any, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    for _ in range(count):
        images = torch.randn(4, 3, 64, 64, generator=generator)
        optimizer.zero_grad()
        logits, _ = model(images, world.tokens())
        nn.functional.cross_entropy(logits, torch.arange(4)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_an_optimizer_state_from_clip_continues_with_hfclip(
    kind: str,
    real: ModuleType,
    standin: ModuleType,
    weights: Callable[[str], str],
    tmp_path: Path,
) -> None:
    def adam(model: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=1e-4, eps=1e-4)

    theirs = World(real, weights(kind), kind, torch.float32, tmp_path)
    ours = World(standin, weights(kind), kind, torch.float32, tmp_path)
    old = silently(lambda: [theirs.load()[0]])[0]
    old_optimizer = adam(old)
    steps(theirs, old, old_optimizer, 2)
    saved = io.BytesIO()
    torch.save({"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}, saved)
    saved.seek(0)
    checkpoint = torch.load(saved)
    new, _ = ours.load()
    new.load_state_dict(checkpoint["model"])
    new_optimizer = adam(new)
    new_optimizer.load_state_dict(checkpoint["optimizer"])
    expected = steps(theirs, old, old_optimizer, 3)
    found = steps(ours, new, new_optimizer, 3)
    names = [name for name, _ in new.named_parameters()]
    assert names == [name for name, _ in old.named_parameters()]
    for value, other in zip(found, expected, strict=True):
        assert torch.allclose(value.float(), other.float(), rtol=1e-5, atol=1e-7)


def test_a_replaced_class_takes_effect_until_it_is_restored(
    standin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = (8, 32, 1, 64, 16, 6, 50, 64, 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(standin.model, "LayerNorm", nn.LayerNorm)
        assert type(hfclip.CLIP(*numbers).visual.ln_post) is nn.LayerNorm
    assert type(hfclip.CLIP(*numbers).visual.ln_post) is LayerNorm


def test_loading_on_the_cpu_does_not_round_float32_weights(
    standin: ModuleType, tmp_path: Path
) -> None:
    """OpenAI's clip rounds float32 weights to float16 when it loads them on the CPU."""
    model = hfclip.CLIP(8, 32, 1, 64, 16, 6, 50, 64, 1, 1)
    torch.save(model.state_dict(), tmp_path / "fine.pt")
    loaded, _ = standin.load(str(tmp_path / "fine.pt"), device="cpu")
    assert torch.equal(loaded.visual.conv1.weight, model.visual.conv1.weight)


def test_build_model_copies_the_tensors(standin: ModuleType, weights: Callable[[str], str]) -> None:
    state = torch.load(weights("vit"))
    before = copy.deepcopy(state)
    model = standin.model.build_model(state)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_build_model_infers_other_mlp_widths(standin: ModuleType) -> None:
    numbers = (8, 32, 1, 64, 16, 6, 50, 64, 1, 1)
    built = hfclip.CLIP(*numbers, vision_mlp_width=100, transformer_mlp_width=37).eval()
    model = standin.model.build_model(built.state_dict())
    assert model.config == built.config
    images, ids = torch.randn(2, 3, 32, 32), torch.tensor([[1, 49, 0], [2, 3, 49]])
    with torch.no_grad():
        for found, expected in zip(model.float()(images, ids), built(images, ids), strict=True):
            assert (found - expected).norm() < 1e-2 * expected.norm()  # rounded to float16


def test_a_replaced_block_needs_no_other_arguments_than_openais(
    standin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Block(nn.Module):
        def __init__(self, d_model: int, n_head: int, attn_mask: Tensor | None = None) -> None:
            super().__init__()
            block = ResidualAttentionBlock(d_model, n_head, attn_mask)
            self.attn, self.mlp = block.attn, block.mlp

    numbers = (8, 32, 1, 64, 16, 6, 50, 64, 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(standin.model, "ResidualAttentionBlock", Block)
        assert type(hfclip.CLIP(*numbers).transformer.resblocks[0]) is Block
        with pytest.raises(TypeError, match="mlp_width"):
            hfclip.CLIP(*numbers, transformer_mlp_width=37)


def test_the_tokenizer_builds_its_tables_on_first_access() -> None:
    tokenizer = SimpleTokenizer()
    assert tokenizer.is_untouched()
    assert tokenizer.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert tokenizer.is_untouched()
    assert tokenizer.encoder["cat</w>"] == 2368
    assert not tokenizer.is_untouched()
    assert not type("Own", (SimpleTokenizer,), {})().is_untouched()


def test_a_tokenizer_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="no attribute 'vocab'"):
        _ = SimpleTokenizer().vocab


def test_the_merges_file_equals_the_one_of_openai(
    real: ModuleType, standin: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default_bpe = standin.simple_tokenizer.default_bpe
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    default_bpe.cache_clear()
    path = default_bpe()
    default_bpe.cache_clear()
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "file"))
    elsewhere = default_bpe()
    default_bpe.cache_clear()
    assert path == str(tmp_path / "hfclip" / "bpe_simple_vocab_16e6.txt.gz")
    shipped = merges(real.simple_tokenizer.default_bpe())
    assert len(shipped) == 48_894
    assert merges(path) == merges(elsewhere) == shipped


def merges(path: str) -> list[str]:
    with gzip.open(path, "rt") as file:
        return file.read().split("\n")[1:48895]
