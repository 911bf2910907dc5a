"""The package as a whole: public names, warnings, and the layers of imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hfclip

PACKAGE = Path(hfclip.__file__).parent

# Each module may import only modules of the rows above its own.
LAYERS = [
    {"errors", "templates", "causes", "layout_files"},
    {
        "config",
        "integrity",
        "patience",
        "tokenizer",
        "safe_unpickle",
        "tensor_names",
        "hub_errors",
        "arrow",
        "display",
        "inputs",
        "card_marks",
        "licenses",
    },
    {"listings"},
    {
        "picture_formats",
        "releases",
        "layers",
        "layouts",
        "archive",
        "foreign_configs",
        "pixels",
        "hub",
        "tokenizer_files",
    },
    {"naming", "partial_cache", "configurations"},
    {"resnet", "vit", "kernels", "sources", "fast_transform", "devices", "labels"},
    {
        "checkpoint",
        "onednn",
        "attention",
        "folders",
        "cards",
        "preprocess",
        "cached_models",
        "images",
    },
    {"encoders", "downloading", "verifying", "card_renewal"},
    {"pushing"},
    {"hub_model"},
    {"model"},
    {"inspection", "scripted", "zeroshot", "onnx_graphs", "label_cache"},
    {"loading", "exporting"},
    {"published_card", "inference"},
    {"publishing"},
    {"cli"},
]


def imports_of(path: Path) -> set[str]:
    """Returns the modules of hfclip that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "hfclip":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hfclip."):
            found.add(str(node.module).split(".")[1])
    return found - {"__version__"}


def test_every_module_is_in_a_layer() -> None:
    placed = [name for layer in LAYERS for name in layer]
    there = [path.stem for path in PACKAGE.glob("[!_]*.py")]
    assert sorted(placed) == sorted([*there, "cli"])


@pytest.mark.parametrize("depth", range(len(LAYERS)))
def test_imports_go_only_to_lower_layers(depth: int) -> None:
    below = set().union(*LAYERS[:depth])
    for name in LAYERS[depth]:
        paths = [*(PACKAGE / name).glob("*.py")] or [PACKAGE / f"{name}.py"]
        for path in paths:
            assert imports_of(path) - {name} <= below, path


def test_the_package_does_not_import_conversion() -> None:
    for path in PACKAGE.glob("*.py"):
        assert "import conversion" not in path.read_text(), path
        assert "from conversion" not in path.read_text(), path


def test_every_public_name_exists_and_is_documented() -> None:
    for name in hfclip.__all__:
        assert getattr(hfclip, name).__doc__, name
    assert set(hfclip.__all__) <= set(dir(hfclip))
    assert sorted(hfclip.__all__) == sorted(hfclip._HOMES)


def test_every_error_is_exported() -> None:
    from hfclip import errors

    kinds = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert kinds <= set(hfclip.__all__)


def test_the_package_has_a_py_typed_file() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_an_unknown_name_raises_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hfclip.nothing


def test_importing_does_not_import_torch_and_a_load_gives_no_warning() -> None:
    code = (
        "import sys, hfclip\n"
        "assert not {'torch', 'click', 'huggingface_hub'} & set(sys.modules)\n"
        "hfclip.load('digits', device='cpu')\n"
        "hfclip.tokenize('caf\\u00e9 &amp; cr\\u00e8me')\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "")


def test_all_errors_share_one_root() -> None:
    from hfclip import errors

    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    assert all(issubclass(kind, hfclip.HfclipError) for kind in kinds)
