"""Asks torch for the instructions of the processor."""

from typing import Any

import torch

from hfclip.fast.kernels import Precision

# Any of these instruction sets lets an x86 processor multiply faster than in float32.
_INSTRUCTIONS: dict[Precision, tuple[str, ...]] = {
    "float32": (),
    "bfloat16": ("avx512_bf16", "amx_bf16"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8"),
}


def has_instructions(precision: Precision) -> bool:
    """Returns whether the processor has fast instructions; True if it is not known to be x86."""
    found = _capabilities()
    is_unknown = found.get("architecture") != "x86_64"
    return is_unknown or any(found.get(name) for name in _INSTRUCTIONS[precision])


def instructions() -> tuple[str, ...]:
    """Returns the names of the processor's instructions that make bfloat16 or int8 faster.

    The result is empty where torch does not report them, for example on ARM.
    """
    found = _capabilities()
    return tuple(name for names in _INSTRUCTIONS.values() for name in names if found.get(name))


def _capabilities() -> dict[str, Any]:
    """Returns what torch reports about the processor; nothing in versions that lack it."""
    ask = getattr(torch.cpu, "get_capabilities", dict)
    found: dict[str, Any] = ask()
    return found
