"""Generates the files that hfclip ships. This package imports hfclip, never the reverse."""
