"""Replaces OpenAI's `clip` package, so that code written for it runs unchanged.

>>> from hfclip import compat
>>> compat.install()
>>> import clip  # imports hfclip from now on

To run a script without editing it: `python -m hfclip.compat script.py args...`.

Each module of `clip` has a replacement here: `package` replaces `clip`, `clip` replaces
`clip.clip`, and so on. Nothing else in hfclip imports this package.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path

from hfclip.errors import ClipImportedError

__all__ = ["ClipImportedError", "install", "uninstall"]

_REPLACEMENTS = {
    "clip": "hfclip.compat.package",
    "clip.clip": "hfclip.compat.clip",
    "clip.model": "hfclip.compat.model",
    "clip.simple_tokenizer": "hfclip.compat.simple_tokenizer",
}
# A process started by `multiprocessing` inherits sys.path and nothing else of `install`. The
# `clip.py` in this folder calls `install` in that process.
_SPAWNED_FOLDER = str(Path(__file__).with_name("spawned"))


def install(*, replace: bool = False) -> None:
    """Makes `import clip` and its three submodules load hfclip in this process.

    It also applies to processes that `multiprocessing` starts later. A second call does nothing.

    Args:
        replace: Whether to replace another `clip` package that is already imported. Names that
            code took from it before, with `from clip import ...`, still refer to that package.

    Raises:
        ClipImportedError: Another `clip` is already imported and `replace` is False.
    """
    imported = sys.modules.get("clip")
    if imported is not None and imported.__name__ != _REPLACEMENTS["clip"]:
        if not replace:
            where = getattr(imported, "__file__", None) or "an unknown location"
            raise ClipImportedError(
                f"A module named clip is already imported from {where}, and other code may use it. "
                "Call hfclip.compat.install() before anything imports clip, run "
                "`python -m hfclip.compat script.py`, or pass replace=True."
            )
        _forget()
    sys.modules.update({name: import_module(module) for name, module in _REPLACEMENTS.items()})
    # importlib.util.find_spec("clip") needs a spec.
    package = sys.modules["clip"]
    package.__spec__ = ModuleSpec("clip", None, origin=package.__file__, is_package=True)
    if _SPAWNED_FOLDER not in sys.path:
        sys.path.insert(0, _SPAWNED_FOLDER)


def uninstall() -> None:
    """Undoes `install`, so that `import clip` loads the original package again.

    It does nothing if `install` was not called. Patches to hfclip's classes stay.
    """
    imported = sys.modules.get("clip")
    if imported is not None and imported.__name__ == _REPLACEMENTS["clip"]:
        _forget()
    if _SPAWNED_FOLDER in sys.path:
        sys.path.remove(_SPAWNED_FOLDER)


def _forget() -> None:
    for name in [name for name in sys.modules if name == "clip" or name.startswith("clip.")]:
        del sys.modules[name]
