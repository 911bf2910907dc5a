"""Makes the C library reuse the memory of one picture for the next.

The gain: a tenth to a quarter of the time for pictures of 640x480, see benchmarks/results/gains.md.
glibc returns a freed block to the system if it is larger than any block freed before. The system
then clears all pages of the next picture. Nothing simpler does this: an environment variable
(MALLOC_MMAP_THRESHOLD_) must be set before the process starts.
"""

from functools import cache

import numpy as np

# Bytes. glibc's limit for this is 32 MB; it then keeps up to twice as much.
_LARGEST_BLOCK_KEPT = 31 * 2**20


@cache
def keep_freed_memory() -> None:
    """Frees one large block, which raises glibc's threshold. Its pages are never touched.

    With other C libraries this has no effect.
    """
    np.empty(_LARGEST_BLOCK_KEPT, np.uint8)
