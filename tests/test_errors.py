"""Every error that hfclip raises derives from HfclipError."""

import ast
import builtins
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest

import hfclip
from hfclip.app.quick_import import import_gradio

PACKAGE = Path(hfclip.__file__).parent

# Accepted errors of other kinds, by module, with the reason.
OTHERS = {
    ("hfclip", "AttributeError"): "the protocol of __getattr__",
    ("hfclip.compat.simple_tokenizer", "AttributeError"): "the protocol of __getattr__",
    ("hfclip.checkpoints.safe_unpickle", "TypeError"): "raised in the unpickler, translated by it",
    ("hfclip.checkpoints.safe_unpickle", "ValueError"): "raised in the unpickler, translated by it",
    ("hfclip.images.formats", "ImportError"): "caught where a decoder is looked for",
    ("hfclip.config", "ValueError"): "raised in the JSON reader and translated by read_json",
    ("hfclip.training.loop", "KeyboardInterrupt"): "Ctrl-C, after the step and its checkpoint",
    ("hfclip.data.parquet_files", "IndexError"): "caught where a value is read, translated there",
    ("hfclip.embedding.run", "KeyboardInterrupt"): "Ctrl-C, after the batch",
    ("hfclip.embedding.ray", "KeyboardInterrupt"): "Ctrl-C, after the workers have ended",
    ("hfclip.embedding.matrix", "_ChangedError"): "caught by the loop that opens the matrix",
    ("hfclip.embedding.parts", "ValueError"): "caught where a part is read",
    (
        "hfclip.embedding.settling",
        "_UnusableError",
    ): "caught where a part is checked",
    ("hfclip.embedding.stores", "FileNotFoundError"): "a file is missing, as in a local folder",
    ("hfclip.search.copies", "FileExistsError"): "caught where a copy gets its name",
    ("hfclip.app.fields", "_MessageError"): "gradio shows it to the visitor",
    ("hfclip.app.guard", "_TooLargeError"): "caught by the guard, which answers with status 413",
    ("hfclip.compat.fetching", "ConnectionError"): "caught by the loop that resumes a download",
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if "__main__" not in parts and "spawned" not in parts:
            yield ".".join(parts).removesuffix(".__init__"), path


def bound(nodes: list[ast.AST]) -> set[str]:
    """Returns the variables and arguments of a module, which `raise error` may refer to."""
    stored = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    handled = {node.name for node in nodes if isinstance(node, ast.ExceptHandler)}
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {name for name in stored | handled | arguments if name}


def raised(node: ast.Raise, module: ModuleType, local: set[str]) -> Any:
    """Returns the class that a statement raises, or None if it raises a caught error again."""
    named = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    if isinstance(named, ast.Attribute):
        owner = ast.unparse(named.value)
        found = getattr(getattr(module, owner, None), named.attr, None)
        if found is None:  # a method of a class in this module
            kinds = [kind for kind in vars(module).values() if inspect.isclass(kind)]
            found = next(vars(kind)[named.attr] for kind in kinds if named.attr in vars(kind))
    elif isinstance(named, ast.Name):
        found = getattr(module, named.id, None) or getattr(builtins, named.id, None)
        if found is None:
            assert named.id in local, ast.unparse(node)
            return None
    else:
        assert named is None or ast.unparse(named).startswith("type("), ast.unparse(node)
        return None
    if found is type:  # type(error)(...)
        return None
    return found if inspect.isclass(found) else get_type_hints(found)["return"]


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=str)
def test_every_raised_error_derives_from_hfclip_error(name: str, path: Path) -> None:
    if name.startswith("hfclip.app."):
        import_gradio()
    module, source = import_module(name), path.read_text()
    # A module without the keyword raises nothing.
    nodes = list(ast.walk(ast.parse(source))) if "raise" in source else []
    local = bound(nodes)
    for node in nodes:
        if not isinstance(node, ast.Raise):
            continue
        kind = raised(node, module, local)
        if kind is None or kind.__module__.startswith("click"):
            continue
        known = issubclass(kind, hfclip.HfclipError) or (name, kind.__name__) in OTHERS
        assert known, f"{path.name}:{node.lineno} raises {kind.__name__}"


def test_every_listed_exception_to_the_rule_is_needed() -> None:
    for name, kind in OTHERS:
        source = Path(import_module(name).__file__ or "").read_text()
        assert re.search(rf"raise {kind}\b", source)


def test_the_rule_detects_an_error_of_another_kind() -> None:
    module = import_module("hfclip.config")
    tree = ast.parse("raise ValueError('x')\nraise ConfigError('x')\nraise error\n")
    found = [raised(node, module, {"error"}) for node in tree.body if isinstance(node, ast.Raise)]
    assert found == [ValueError, hfclip.ConfigError, None]
