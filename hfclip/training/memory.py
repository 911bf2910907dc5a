"""Makes the C library reuse the memory of one step for the next.

The gain: 4 % of a step of ViT-B/32 with 16 pictures, and no more memory at its peak. glibc returns
freed gradients and activations to the system, which then clears 80,000 pages in the next step.
Nothing simpler does this: `hfclip.images.memory` reaches blocks up to 32 MB only, and environment
variables such as MALLOC_TRIM_THRESHOLD_ must be set before the process starts.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# The numbers of two options in glibc's malloc.h, and their largest and usual values. The usual
# threshold is the one that glibc itself sets after it has freed large blocks.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER, _USUAL_THRESHOLD, _USUAL_MMAP_MAX = 2**31 - 1, 64 * 2**20, 65536


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keeps freed memory in the process, and returns it to the system at the end.

    With other C libraries this has no effect.
    """
    library = ctypes.CDLL(None) if _is_glibc() else None
    if library is None:
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_THRESHOLD)
        library.malloc_trim(0)


def _is_glibc() -> bool:
    import platform  # noqa: PLC0415  # needed once

    return platform.libc_ver()[0] == "glibc"
