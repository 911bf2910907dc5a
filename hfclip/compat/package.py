"""Replaces `clip`: three functions and three submodules."""

from hfclip.compat import clip, model, simple_tokenizer
from hfclip.compat.clip import available_models, load, tokenize

__all__ = ["available_models", "clip", "load", "model", "simple_tokenizer", "tokenize"]

__path__: list[str] = []  # makes it a package without further submodules
