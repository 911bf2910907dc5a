"""The command line: one module for each group of commands."""

from hfclip.cli.group import main

__all__ = ["main"]
