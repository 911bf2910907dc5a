"""The command line: one module for each group of commands."""

import sys

from hfclip.cli import interrupts

try:
    from hfclip.cli.group import main
except (Exception, KeyboardInterrupt) as error:  # the imports take a moment
    if not interrupts.is_behind(error):
        raise
    sys.stderr.write(f"{interrupts.MESSAGE}\n")
    sys.exit(interrupts.STATUS)

__all__ = ["main"]
