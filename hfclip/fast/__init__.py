"""Towers for inference: `hfclip.optimize` and the operators that it uses."""
