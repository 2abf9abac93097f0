"""Failed allocations, which libraries report by errors of many classes.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import errno
import re

MEMORY_ADVICE = (
    "out of memory: end other programs, raise the limit (ulimit -v, or the container's), or use a smaller batch, "
    "max_seq_length or model"
)
# Of Paddle, C++, NumPy, Arrow, ONNX Runtime, the dynamic linker, Python's threads, and Rust's panic without memory.
_ALLOCATION_WORDS = re.compile(
    r"ResourceExhausted|bad.alloc|out of memory|cannot allocate memory|(failed|unable) to allocate|malloc of size"
    r"|failed to map segment|can't start new thread|Python API call failed",
    re.IGNORECASE,
)


def is_memory_error(error: BaseException | str) -> bool:
    """Whether an error, or a message, is that of a failed allocation.

    Args:
        error: of any class.

    Returns:
        Whether memory was missing.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return bool(_ALLOCATION_WORDS.search(str(error)))


def raise_memory_error(error: BaseException) -> None:
    """Raise a MemoryError with advice in place of a failed allocation's error.

    Where errors of any class are explained, this comes first: a missing byte says nothing about the file or the model.

    Args:
        error: of any class; others are left to the caller.

    Raises:
        MemoryError: an allocation failed.
    """
    if is_memory_error(error):
        raise MemoryError(MEMORY_ADVICE) from None
