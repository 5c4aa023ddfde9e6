"""Arrays that get more rows in place, in address space of their own."""

import contextlib
import mmap
import resource
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_SPACE_BYTES = 16 * 1024**3
_LARGE_BYTES = 4 * 1024**2
_UNBACKED = getattr(mmap, "MAP_NORESERVE", 0x4000)  # in Python from 3.13 on; Linux's value


class Room:
    """Memory of an array of rows; it becomes more without being copied or written to.

    The system reserves addresses and gives memory where a row is first written to. So rows cost
    something one by one when they come, and nothing at the instant at which there is no room left;
    and who looks at the array, or still copies it, goes on to see it.

    Parameters
    ----------
    dtype
        Of an element.
    shape
        Of a row.
    """

    def __init__(self, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> None:
        self._dtype = np.dtype((dtype, shape))
        self._memory: mmap.mmap | None = None
        self._is_large = False  # and so of pages of 2 MB, which are found sooner

    def rows(self, n: int) -> NDArray[Any]:
        """Return the array with ``n`` rows; those that were not there before are zeros.

        Only where there are more than was reserved for, 16 GB or twice what was asked for, all are
        copied.
        """
        n_bytes = n * self._dtype.itemsize
        if self._memory is None or n_bytes > len(self._memory):
            before, self._memory = self._memory, _reserved(max(2 * n_bytes, mmap.PAGESIZE))
            if before is not None:
                np.frombuffer(self._memory, np.uint8, len(before))[:] = np.frombuffer(before, "u1")
            self._is_large = False
        if n_bytes >= _LARGE_BYTES and not self._is_large:
            self._is_large = True
            with contextlib.suppress(AttributeError, OSError):  # a system that has no such pages
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        flat = np.frombuffer(self._memory, np.uint8, n_bytes)
        return flat.view(self._dtype.base).reshape(n, *self._dtype.shape)

    def give_back(self, n: int) -> None:
        """Give the system the memory of rows from ``n`` on; they are zeros, as if never there."""
        first = -(-n * self._dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        if self._memory is not None and first < len(self._memory):
            self._memory.madvise(mmap.MADV_DONTNEED, first)


def _reserved(n_bytes: int) -> mmap.mmap:
    """Return addresses for at least so many bytes, for `_SPACE_BYTES` where they cost nothing.

    Raises
    ------
    MemoryError
        If the system does not give ``n_bytes``.
    """
    for wanted in (n_bytes,) if are_addresses_dear() else (max(n_bytes, _SPACE_BYTES), n_bytes):
        with contextlib.suppress(OSError):
            return mmap.mmap(-1, wanted, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _UNBACKED)
    raise MemoryError(f"{n_bytes} bytes for a table")


@cache
def are_addresses_dear() -> bool:
    """Return whether this process may not have many more addresses than memory.

    As where Linux promises no more than it has (``vm.overcommit_memory`` is 2), or under a limit of
    addresses (``ulimit -v``).
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    promises = ""
    with contextlib.suppress(OSError):
        promises = Path("/proc/sys/vm/overcommit_memory").read_text(encoding="ascii").strip()
    return limit != resource.RLIM_INFINITY or promises == "2"
