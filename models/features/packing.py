"""Pages of a table without their zeros, for where each byte is sent and copied many times.

A packed page is words of 64 bits, little-endian: the page's length in bytes, a bit for each of its
words, those that are not zero in order, and what is left behind the last whole word, filled up.
Tables of counts by day and hour are mostly zeros, and this takes an eighth of what it takes to
compress them, at about the same size.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

_WORD = 8  # bytes
_BITS = 64


class Packer:
    """Packs pages, some at a time, into memory that it keeps.

    Examples
    --------
    >>> words, starts = Packer().pack(np.array([0] * 8 + [7] + [0] * 7, np.uint8), 16)
    >>> words.tolist(), starts.tolist()
    ([16, 2, 7], [0, 3])
    """

    def __init__(self) -> None:
        self._out = np.empty(0, np.uint64)

    def pack(
        self, data: NDArray[np.uint8], page_bytes: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return pages packed, one after the other, and where each begins and the last ends.

        Parameters
        ----------
        data
            uint8 of shape (n_bytes,): pages, the last of which may be shorter; begins at a word.
        page_bytes
            Length of a page, a multiple of 8.

        Returns
        -------
        uint64 of shape (n_words,), which holds until the next call, and int64 of shape
        (n_pages + 1,).
        """
        n_pages, n_words = -(-len(data) // page_bytes), page_bytes // _WORD
        longest = 1 + -(-n_words // _BITS) + n_words + 1
        n_out = n_pages * longest + 1  # what is zero is written too, and then over
        if len(self._out) < n_out:
            self._out = np.empty(n_out, np.uint64)
        starts = np.zeros(n_pages + 1, np.int64)
        _pack(data, page_bytes, self._out, starts)
        return self._out[: starts[-1]], starts


def unpack_page(packed: bytes, max_bytes: int) -> bytes | None:
    """Return a page as it was, None where these cannot be the bytes of one.

    Examples
    --------
    >>> words, _ = Packer().pack(np.arange(100, dtype=np.uint8), 128)
    >>> unpack_page(words.tobytes(), 128) == bytes(range(100))
    True
    >>> unpack_page(b"something else..", 128) is None
    True
    """
    if len(packed) % _WORD or not packed:
        return None
    words = np.frombuffer(packed, np.uint64)
    n_bytes = int(words[0])
    if n_bytes > max_bytes:
        return None
    page = np.zeros(-(-n_bytes // _WORD) * _WORD, np.uint8)
    is_whole = _unpack(words, n_bytes, page.view(np.uint64))
    return page[:n_bytes].tobytes() if is_whole else None


@nb.njit(cache=True)
def _pack(data, page_bytes, out, starts):  # type: ignore[no-untyped-def]  # compiled
    at = 0
    for page in range(len(starts) - 1):
        first = page * page_bytes
        n = min(first + page_bytes, len(data)) - first
        n_words = n // _WORD
        words = data[first : first + n_words * _WORD].view(np.uint64)
        out[at] = n
        at += 1
        to = at + (n_words + _BITS - 1) // _BITS
        for block in range(at, to):
            bits = np.uint64(0)
            begin = (block - at) * _BITS
            for i in range(begin, min(begin + _BITS, n_words)):
                out[to] = words[i]
                is_there = np.uint64(words[i] != 0)
                bits |= is_there << np.uint64(i - begin)
                to += np.int64(is_there)
            out[block] = bits
        at = to
        if n % _WORD:
            rest = np.uint64(0)
            for i in range(n % _WORD):
                rest |= np.uint64(data[first + n_words * _WORD + i]) << np.uint64(8 * i)
            out[at] = rest
            at += 1
        starts[page + 1] = at


@nb.njit(cache=True)
def _unpack(words, n_bytes, page):  # type: ignore[no-untyped-def]  # compiled
    """Fill a page of zeros; return whether that took the words that are there, all of them."""
    n_words = n_bytes // _WORD
    n_blocks = (n_words + _BITS - 1) // _BITS
    at = 1 + n_blocks
    if at > len(words):
        return False
    for block in range(n_blocks):
        bits = words[1 + block]
        if not bits:
            continue
        begin = block * _BITS
        for i in range(begin, min(begin + _BITS, n_words)):
            if bits >> np.uint64(i - begin) & np.uint64(1):
                if at >= len(words):
                    return False
                page[i] = words[at]
                at += 1
    if n_bytes % _WORD:
        if at >= len(words):
            return False
        page[n_words] = words[at]
        at += 1
    return at == len(words)
