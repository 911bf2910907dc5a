"""Tests of the page of `hfclip app`."""
