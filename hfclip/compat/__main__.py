"""Runs a script with hfclip in place of `clip`: `python -m hfclip.compat script.py args...`."""

import runpy
import sys
from pathlib import Path

from hfclip import compat

_USAGE = """usage: python -m hfclip.compat script.py [argument ...]
       python -m hfclip.compat -m module [argument ...]

Runs a script or module as Python does, with hfclip in place of the `clip` package."""


def main(arguments: list[str]) -> None:
    """Installs hfclip as `clip` and runs the script or module as `__main__`."""
    if arguments in (["-h"], ["--help"]):
        print(_USAGE)  # noqa: T201
    elif arguments[:1] == ["-m"] and len(arguments) > 1:
        compat.install()
        sys.argv = arguments[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif arguments and Path(arguments[0]).exists():
        if not sys.flags.safe_path:
            sys.path[0] = str(Path(arguments[0]).resolve().parent)
        compat.install()
        sys.argv = arguments
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        found = f"There is no file {arguments[0]}.\n" if arguments[:1] not in ([], ["-m"]) else ""
        print(f"{found}{_USAGE}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


main(sys.argv[1:])
