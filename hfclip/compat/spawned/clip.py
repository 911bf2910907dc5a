"""Found as `clip` by a process that was started from one in which hfclip stands in for it."""

from hfclip import compat

compat.install(replace=True)  # takes this module's own place
