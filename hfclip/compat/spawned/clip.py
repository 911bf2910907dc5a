"""Imported as `clip` in child processes of a process that called `hfclip.compat.install`."""

from hfclip import compat

compat.install(replace=True)  # replaces this module
