"""Imports gradio without the stub files that it writes for type checkers.

For each of its 80 components, `import gradio` parses the component's source and renders a .pyi
file beside it, although the files are already there. That is 1.7 of the 3.9 seconds of the import
(gradio 6.31, Intel Xeon 2.5 GHz), and gradio has no option against it.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# The module that writes the files, and its function.
_MODULE, _FUNCTION = "gradio.component_meta", "create_or_modify_pyi"


def import_gradio() -> None:
    """Imports gradio without writing stub files. Does nothing if it is already imported."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        import_module("gradio")
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds the module as Python does, and replaces its function once the module is executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == _MODULE else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_replace(module: ModuleType) -> None:
            execute(module)
            if hasattr(module, _FUNCTION):
                setattr(module, _FUNCTION, lambda *_: None)

        spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]
        return spec
