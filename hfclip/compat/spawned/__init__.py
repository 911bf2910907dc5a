"""A folder for sys.path; see `hfclip.compat.install`."""
