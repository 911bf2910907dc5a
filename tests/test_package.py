"""The package as a whole: public names, warnings, and the layers of imports."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import hfclip

PACKAGE = Path(hfclip.__file__).parent

# The folders and top-level modules of hfclip, lowest first, each with those that it may import.
ROOMS = {
    "errors": "",
    "version": "",
    "config": "errors",
    "atomic": "errors",
    "devices": "errors",
    "interruption": "",
    "text": "errors",
    "network": "errors config",
    "images": "errors config",
    "layouts": "errors config atomic text",
    "hub": "errors layouts",
    "releases": "config",
    "checkpoints": "errors config interruption network layouts",
    "sources": "errors config layouts hub releases checkpoints",
    "light": "errors config text images layouts hub checkpoints sources",
    "cards": "errors version config layouts hub",
    "model": "errors config atomic devices network layouts hub checkpoints sources cards",
    "onnx": "errors config layouts",
    "fast": "errors config network checkpoints model",
    "data": "errors atomic text images hub",
    "zeroshot": "errors version config text images layouts hub light network model",
    "publishing": "errors version config atomic layouts hub releases checkpoints sources cards "
    "model onnx",
    "loading": "errors devices network images hub releases checkpoints sources model",
    "environment": "version hub sources fast",
    "training": "errors version config atomic devices interruption text network images layouts hub "
    "releases checkpoints sources cards model fast data zeroshot publishing environment",
    "embedding": "errors version config atomic devices interruption text images layouts hub "
    "releases sources light model fast data loading",
    "search": "errors atomic text images layouts light embedding",
    "probing": "errors version atomic images data embedding zeroshot",
    "compat": "errors config devices text network images layouts hub releases checkpoints sources "
    "model",
    "app": "errors version devices images network releases sources cards zeroshot embedding search",
    "cli": "errors version atomic devices images layouts hub releases sources light model zeroshot "
    "fast publishing loading environment training embedding search probing app",
}
# The modules of each folder, lowest first: a module imports only what stands before it.
ORDER = {
    "config": "values parameters resizing",
    "text": "bpe tokenizer vocabulary",
    "network": "initialization inputs layers vit resnet clip scripted",
    "images": "arrow memory formats display exact fast steps deferred preprocess reading",
    "layouts": "labels files weight_files kinds section openai open_clip preprocessor transformers "
    "native detect write",
    "hub": "missing causes patience cache integrity listings errors ask fetch push",
    "checkpoints": "finite safe_unpickle archive names shapes assembly headers comparing tensors "
    "read fit",
    "sources": "addresses naming configuration folder partial_cache find cached download verify "
    "inspect",
    "light": "costs half weights shapes layers vit resnet model loading choice",
    "cards": "marks licenses card renewal",
    "onnx": "nodes towers graphs",
    "fast": "kernels attention processor onednn encoders optimize",
    "data": "urls asking remote remote_folder parquet_files references records names columns rows "
    "delimited json_rows tables folders coco parquet tars repository contents sources checks "
    "joining splits skipped examples",
    "zeroshot": "templates labels entries classifier cache shared without_torch",
    "publishing": "export companions published_card outcome space_install space_files space "
    "finetune",
    "training": "settings captions processes loss operations unchanged packed step optimizer "
    "precision batches checkpoints folder log memory loop base inputs metrics results card curves "
    "evaluation mix exam outcome run",
    "embedding": "items locations folders named settings text_lines table_rows parquet_rows "
    "tar_examples listing locks claims stores records part_files parts manifest identity opening "
    "plan settling fingerprints inputs layout comparing changes compact failures matrix_files "
    "matrix embeddings workers decoding encode pipeline arrays text_model options work crew events "
    "scheduling cluster nodes ray_session ray_crew ray run",
    "search": "exact queries lists recall index collection_index searcher copies thumbnails sheet "
    "duplicates",
    "probing": "labels division regression training saved pictures probe scores run",
    "app": "quick_import limits times demo answers finding markup guard fields classify_tab "
    "search_tab compare_tab about_tab page serve space",
}


@functools.cache
def from_imports(path: Path) -> list[ast.ImportFrom]:
    """Returns all `from ... import` of a file, also those inside functions."""
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


def imports_of(path: Path) -> set[tuple[str, str | None]]:
    """Returns what a file imports of hfclip, also inside functions: (room, module of the room)."""
    found: set[tuple[str, str | None]] = set()
    for node in from_imports(path):
        if node.module == "hfclip":
            found |= {(alias.name, None) for alias in node.names}
        elif (node.module or "").startswith("hfclip."):
            _, room, *rest = str(node.module).split(".")
            modules = rest[:1] or [alias.name for alias in node.names]
            found |= {(room, module) for module in modules}
    return found


def files_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).glob("*.py")) or [PACKAGE / f"{room}.py"]


def test_every_folder_and_module_has_its_place() -> None:
    rooms = {path.stem for path in PACKAGE.glob("[!_]*.py")}
    rooms |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == ROOMS.keys()
    for room, modules in ORDER.items():
        assert sorted(modules.split()) == sorted(
            path.stem for path in files_of(room) if path.stem != "__init__"
        ), room


def test_a_folder_may_import_only_folders_that_stand_above_it() -> None:
    rooms = list(ROOMS)
    for place, room in enumerate(rooms):
        assert set(ROOMS[room].split()) <= set(rooms[:place]), room


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    allowed = set(ROOMS[room].split())
    for path in files_of(room):
        assert {found for found, _ in imports_of(path)} - {room} <= allowed, path


@pytest.mark.parametrize("room", ORDER)
def test_imports_inside_a_folder_run_one_way(room: str) -> None:
    below: set[str] = set()
    for module in ORDER[room].split():
        own = {name for found, name in imports_of(PACKAGE / room / f"{module}.py") if found == room}
        assert own <= below, f"{room}/{module}.py"
        below.add(module)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_a_module_has_at_most_400_lines_and_imports_no_private_name(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    imported = [
        alias.name
        for node in from_imports(path)
        if (node.module or "").startswith("hfclip")
        for alias in node.names
    ]
    assert not [name for name in imported if name.startswith("_") and name != "__version__"]


def test_nothing_imports_the_workshop_or_the_tests() -> None:
    for path in PACKAGE.rglob("*.py"):
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
