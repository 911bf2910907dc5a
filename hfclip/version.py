"""The version of hfclip."""

__version__ = "0.1.0"
