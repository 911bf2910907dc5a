import pickle
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from PIL import Image
from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

import hfclip
from hfclip.config import OPENAI_MEAN, OPENAI_STD
from hfclip.images.exact import Recipe, _tables
from hfclip.images.fast import FastTransform

RECIPE = Recipe(16, OPENAI_MEAN, OPENAI_STD)


def steps(resolution: int) -> Compose:
    """Returns the preprocess built from torchvision's transforms."""
    return Compose(list(hfclip.image_transform(resolution).transforms))


def test_black_and_white_become_the_normalised_extremes() -> None:
    transform = hfclip.image_transform(8)
    black, white = (transform(Image.new("L", (20, 10), level)) for level in (0, 255))
    assert black.shape == (3, 8, 8)
    assert black.dtype == torch.float32
    assert black[:, 0, 0].tolist() == pytest.approx([-1.7922626, -1.7520971, -1.4802198])
    assert white[:, 0, 0].tolist() == pytest.approx([1.9303361, 2.0748837, 2.1458969])


def test_the_middle_of_the_longer_side_is_kept() -> None:
    image = Image.new("RGB", (12, 4))
    image.paste((255, 255, 255), (4, 0, 8, 4))
    pixels = hfclip.image_transform(4, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert pixels.min().item() == 1.0


def test_a_palette_image_is_resized_before_its_conversion_to_rgb() -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.putdata([0, 1, 1, 0])
    pixels = hfclip.image_transform(4, mean=(0, 0, 0), std=(1, 1, 1))(image)
    # Palette indices cannot be blended, so no grey appears.
    assert set(pixels.unique().tolist()) == {0.0, 1.0}


def test_the_transform_survives_pickling() -> None:
    transform = hfclip.image_transform(16)
    image = Image.linear_gradient("L")
    expected = transform(image)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), expected)
    assert len(transform.transforms) == 5
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), expected)


# Torch takes two seconds to import, so one process forks for each of three programs before it has
# prepared a picture. Each fork prints a line.
PROGRAMS = """
import os, pickle, resource, sys, hfclip
from PIL import Image
hfclip.load, hfclip.image_transform  # imports torch

def need_no_torchvision():
    model, preprocess = hfclip.load('digits', device='cpu')
    image = Image.linear_gradient('L')
    model.encode_image(pickle.loads(pickle.dumps(preprocess))(image)[None])
    assert 'torchvision' not in sys.modules
    from torchvision.transforms import Compose
    assert isinstance(preprocess, Compose) and len(preprocess.transforms) == 5
    assert type(preprocess) is Compose
    return 'alone'

def faults_for_each_image(mode):
    preprocess = hfclip.image_transform(224, mode=mode)
    def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    def prepare(number):
        for _ in range(number): preprocess(Image.new('RGB', (640, 480)))
    prepare(5)
    before = faults()
    prepare(20)
    return (faults() - before) / 20

for program, *arguments in (
    (need_no_torchvision,), (faults_for_each_image, 'exact'), (faults_for_each_image, 'fast')
):
    if os.fork() == 0:
        print(program.__name__, *arguments, program(*arguments), flush=True)
        os._exit(0)  # clearing all modules takes a second
    assert os.wait()[1] == 0
os._exit(0)
"""


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """Runs the programs and returns what each prints, by its name and arguments."""
    command = [sys.executable, "-c", PROGRAMS]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.rpartition(" ") for line in result.stdout.splitlines()]
    return {name: answer for name, _, answer in lines}


def test_a_load_and_a_picture_need_no_torchvision(printed: dict[str, str]) -> None:
    assert printed["need_no_torchvision"] == "alone"


def test_the_transform_is_a_compose() -> None:
    looks: dict[str, Callable[[Any], Any]] = {
        "repr": repr,
        "isinstance": lambda transform: isinstance(transform, Compose),
        "attribute": lambda transform: transform.transforms,
        "vars": vars,
    }
    for name, look in looks.items():
        transform = hfclip.image_transform(16)
        assert look(transform), name
        assert isinstance(transform, Compose), name
        kinds = [getattr(step, "__name__", type(step).__name__) for step in transform.transforms]
        assert kinds == ["Resize", "CenterCrop", "to_rgb", "ToTensor", "Normalize"]
    assert repr(hfclip.image_transform(16)).startswith("Compose(\n    Resize(size=16")


@pytest.mark.parametrize("size", [(640, 480), (16, 16), (17, 29), (29, 17), (5, 3), (1, 40)])
def test_the_shortcut_and_the_five_steps_give_identical_pixels(size: tuple[int, int]) -> None:
    image = Image.effect_noise(size, 80).convert("RGB")
    assert torch.equal(hfclip.image_transform(16)(image), steps(16)(image))


def test_a_changed_step_takes_effect() -> None:
    transform, image = hfclip.image_transform(16), Image.linear_gradient("L")
    before = transform(image)
    transform.transforms[-1] = Normalize((0, 0, 0), (1, 1, 1))
    assert not torch.equal(transform(image), before)
    assert torch.equal(
        transform(image)[0], ToTensor()(Resize(16, InterpolationMode.BICUBIC)(image))[0]
    )


def test_the_dtype_follows_the_default_dtype_as_in_torchvision() -> None:
    transform, expected, image = hfclip.image_transform(16), steps(16), Image.linear_gradient("L")
    torch.set_default_dtype(torch.float64)
    try:
        pixels, theirs = transform(image), expected(image)
    finally:
        torch.set_default_dtype(torch.float32)
    assert pixels.dtype == torch.float64
    assert torch.equal(pixels, theirs)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("size", [(40, 30), (300, 200), (10, 12)])
def test_the_default_device_does_not_matter(
    size: tuple[int, int], mode: Literal["exact", "fast"]
) -> None:
    image = Image.effect_noise(size, 80).convert("RGB")
    expected = hfclip.image_transform(16, mode=mode)(image)
    _tables.cache_clear()  # rebuilds the cached tables under the default device
    with torch.device("meta"):
        pixels = hfclip.image_transform(16, mode=mode)(image)
    torch.set_default_device("meta")
    try:
        again = hfclip.image_transform(16, mode=mode)(image)
    finally:
        torch.set_default_device(None)
    for found in (pixels, again, hfclip.image_transform(16, mode=mode)(image)):
        assert (found.device.type, found.dtype) == ("cpu", torch.float32)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_tables_built_under_another_default_dtype_are_the_same(dtype: torch.dtype) -> None:
    images = [Image.effect_noise(size, 80).convert("RGB") for size in ((40, 30), (300, 200))]
    expected = [(hfclip.image_transform(16)(i), FastTransform(RECIPE)(i)) for i in images]
    _tables.cache_clear()
    torch.set_default_dtype(dtype)
    try:
        fast = [FastTransform(RECIPE)(image) for image in images]
        short = [RECIPE.exact(image) for image in images]
    finally:
        torch.set_default_dtype(torch.float32)
    for pixels, quick, (exact, ours) in zip(short, fast, expected, strict=True):
        assert (pixels.dtype, quick.dtype) == (torch.float32, torch.float32)
        assert torch.equal(pixels, exact)
        assert torch.equal(quick, ours)


def test_an_input_that_is_not_an_image_is_refused_as_by_torchvision() -> None:
    for transform in (hfclip.image_transform(16), steps(16)):
        with pytest.raises(TypeError, match="Unexpected type <class 'str'>"):
            transform("photo.jpg")


def test_mean_and_std_may_be_lists() -> None:
    mean, std = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
    pixels = hfclip.image_transform(4, mean, std)(Image.new("L", (4, 4), 255))  # type: ignore[arg-type]
    assert pixels.unique().tolist() == [2.0]


def test_a_zero_deviation_and_an_unknown_mode_are_refused() -> None:
    with pytest.raises(ValueError, match="expected three numbers other than zero"):
        hfclip.image_transform(16, std=(1, 0, 1))
    with pytest.raises(
        ValueError, match="The preprocess mode is 'quick'; expected 'exact' or 'fast'"
    ):
        hfclip.image_transform(16, mode="quick")  # type: ignore[arg-type]
    for wrong in ({"std": (1, 0, 1)}, {"mode": "quick"}, {"mean": (1, 2)}, {"resolution": 0}):
        with pytest.raises(hfclip.ArgumentError):
            hfclip.image_transform(**{"resolution": 16, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="preprocess is 'quick'; expected 'exact' or 'fast'"):
        hfclip.load("no/such-model", preprocess="quick")  # type: ignore[call-overload]


def test_load_returns_the_requested_transform() -> None:
    _, fast = hfclip.load("digits", device="cpu", preprocess="fast")
    _, exact = hfclip.load("digits", device="cpu", preprocess="exact")
    assert isinstance(fast, FastTransform)
    assert str(fast).startswith("FastTransform(Recipe(resolution=32, mean=(")
    image = Image.linear_gradient("L")
    assert torch.equal(fast(image), exact(image))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_memory_is_reused_from_one_image_to_the_next(mode: str, printed: dict[str, str]) -> None:
    # One image has 300 pages of 4 kB.
    assert float(printed[f"faults_for_each_image {mode}"]) < 100
