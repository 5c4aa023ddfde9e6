"""Pages without their zeros: every page comes back to the bit, and nothing else passes for one."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.features.packing import Packer, unpack_page

PAGE_BYTES = 1_024  # two blocks of bits
PACKER = Packer()
SPARSE = st.one_of(st.just(0), st.just(0), st.just(0), st.integers(1, 255))


def packed(data: np.ndarray, page_bytes: int = PAGE_BYTES) -> list[bytes]:
    words, starts = PACKER.pack(data, page_bytes)
    return [words[a:b].tobytes() for a, b in pairwise(starts)]


@given(arrays(np.uint8, st.integers(0, 3 * PAGE_BYTES), elements=SPARSE))
def test_pages_come_back_to_the_bit(data: np.ndarray) -> None:
    """Whatever their length, and however many zeros they have."""
    pages = packed(data)
    assert len(pages) == -(-len(data) // PAGE_BYTES)
    assert b"".join(unpack_page(page, PAGE_BYTES) or b"" for page in pages) == data.tobytes()


@given(arrays(np.uint8, st.integers(0, 2 * PAGE_BYTES), elements=SPARSE))
def test_a_packed_page_is_as_long_as_its_words_that_are_not_zero(data: np.ndarray) -> None:
    """Counted by NumPy: the length, a bit a word, the words, what is left over."""
    for i, page in enumerate(packed(data)):
        held = data[i * PAGE_BYTES : (i + 1) * PAGE_BYTES]
        n_words = len(held) // 8
        words = held[: n_words * 8].view(np.uint64)
        n = 1 + -(-n_words // 64) + np.count_nonzero(words) + (len(held) % 8 > 0)
        assert len(page) == 8 * n


@given(arrays(np.uint8, st.integers(1, PAGE_BYTES), elements=SPARSE), st.data())
def test_what_is_cut_short_or_goes_on_is_no_page(data: np.ndarray, drawn: st.DataObject) -> None:
    """Nor is one that is longer than pages are."""
    (page,) = packed(data)
    cut = drawn.draw(st.integers(0, len(page) - 1))
    assert unpack_page(page[:cut], PAGE_BYTES) is None
    assert unpack_page(page + bytes(8), PAGE_BYTES) is None
    assert unpack_page(page, len(data) - 1) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_page_or_none(found: bytes) -> None:
    """Nothing is read behind their end, and a page is no longer than it says."""
    page = unpack_page(found, PAGE_BYTES)
    if page is not None:
        assert len(page) == int.from_bytes(found[:8], "little")


@pytest.mark.parametrize("n", [1, 7, 8, 512, 513, PAGE_BYTES])
def test_pages_without_a_zero_cost_little_more(n: int) -> None:
    """One bit in 64, the length and what fills up the last word."""
    (page,) = packed(np.full(n, 255, np.uint8))
    assert unpack_page(page, PAGE_BYTES) == b"\xff" * n
    assert len(page) <= n + 8 + 8 * (1 + n // 512) + 8
