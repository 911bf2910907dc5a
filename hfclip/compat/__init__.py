"""Stands in for OpenAI's `clip` package, so that code written for it runs as it is.

>>> from hfclip import compat
>>> compat.install()
>>> import clip  # hfclip, from here on

Without a change to the code: `python -m hfclip.compat script.py args...`.

Each module here is what one module of `clip` becomes: `clip` is `package`, `clip.clip` is `clip`,
and so on. What hfclip itself computes lies outside, and nothing there knows of this room.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path

from hfclip.errors import ClipImportedError

__all__ = ["ClipImportedError", "install", "uninstall"]

_HOMES = {
    "clip": "hfclip.compat.package",
    "clip.clip": "hfclip.compat.clip",
    "clip.model": "hfclip.compat.model",
    "clip.simple_tokenizer": "hfclip.compat.simple_tokenizer",
}
# A process that this one starts with multiprocessing takes over sys.path, and nothing else:
# what it finds there as `clip` installs hfclip in it too.
_SPAWNED = str(Path(__file__).with_name("spawned"))


def install(*, replace: bool = False) -> None:
    """Makes `import clip` and its three modules mean hfclip, in this process.

    Processes that `multiprocessing` starts from this one follow. Calling it again does nothing.

    Args:
        replace: Whether to take the place of another `clip` that is imported already. What
            `from clip import ...` has given out before stays the other's.

    Raises:
        ClipImportedError: Another `clip` is imported already, and `replace` is off.
    """
    imported = sys.modules.get("clip")
    if imported is not None and imported.__name__ != _HOMES["clip"]:
        if not replace:
            where = getattr(imported, "__file__", None) or "an unknown place"
            raise ClipImportedError(
                f"A module named clip is imported already, from {where}, and code may hold on to "
                "it; hfclip.compat must come first. Call hfclip.compat.install() before anything "
                "imports clip, run `python -m hfclip.compat script.py`, or say replace=True."
            )
        _forget()
    sys.modules.update({name: import_module(home) for name, home in _HOMES.items()})
    # So that importlib.util.find_spec("clip") has an answer, as for any package.
    package = sys.modules["clip"]
    package.__spec__ = ModuleSpec("clip", None, origin=package.__file__, is_package=True)
    if _SPAWNED not in sys.path:
        sys.path.insert(0, _SPAWNED)


def uninstall() -> None:
    """Lets `import clip` mean what it meant before; without an `install` it does nothing.

    What has been patched stays so.
    """
    imported = sys.modules.get("clip")
    if imported is not None and imported.__name__ == _HOMES["clip"]:
        _forget()
    if _SPAWNED in sys.path:
        sys.path.remove(_SPAWNED)


def _forget() -> None:
    for name in [name for name in sys.modules if name == "clip" or name.startswith("clip.")]:
        del sys.modules[name]
