"""Folder that `hfclip.compat.install` puts on sys.path for child processes."""
