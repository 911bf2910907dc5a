"""What `import clip` gives: three functions, and the modules they come from."""

from hfclip.compat import clip, model, simple_tokenizer
from hfclip.compat.clip import available_models, load, tokenize

__all__ = ["available_models", "clip", "load", "model", "simple_tokenizer", "tokenize"]

__path__: list[str] = []  # a package, of which nothing but these modules can be imported
