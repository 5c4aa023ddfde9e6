"""One bank's paying accounts: rows by keyed hash, and their array state."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.features.accounts import ACCOUNT, learn_frauds, new_accounts, observe, rescale
from models.features.key_index import KeyIndex
from models.features.room import Room
from stream.text_rows import TextRows, seed_of
from stream.touched import TouchedPages

_FIRST_ROWS = 1_024


class AccountTable:
    """State of every account that has paid; the account's own name is never kept on disk.

    Parameters
    ----------
    secret
        Key of the hash under which rows are stored.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret[:64]
        self._rooms = {"state": Room(ACCOUNT), "keys": Room(np.uint64)}
        self._reserve(_FIRST_ROWS)
        self.size = 0
        self._index = KeyIndex()
        self._rows_of = TextRows(self._add, seed_of(secret))
        self._touched = TouchedPages(ACCOUNT.itemsize)
        self._touched_keys = TouchedPages(self.keys.itemsize)

    def rows(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the accounts' rows, new ones added."""
        return self._rows_of.rows(texts)

    def _add(self, texts: list[str]) -> NDArray[np.int64]:
        blake, secret = hashlib.blake2b, self._secret
        digests = [blake(text.encode(), digest_size=8, key=secret).digest() for text in texts]
        keys = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
        rows = self._index.add(keys)
        first, self.size = self.size, self._index.next_number
        self._touched.span(first, self.size)
        self._touched_keys.span(first, self.size)
        if self.size > len(self.state):
            self._reserve(self.size + self.size // 8 + _FIRST_ROWS)
        self.state[first : self.size] = new_accounts(self.size - first)
        self.keys[rows] = keys
        return rows

    def _reserve(self, n: int) -> None:
        self.state: NDArray[np.void] = self._rooms["state"].rows(n)
        self.keys: NDArray[np.uint64] = self._rooms["keys"].rows(n)

    def observe(
        self,
        row: NDArray[np.int64],
        event_ms: NDArray[np.int64],
        amount: NDArray[np.float64],
        out: NDArray[np.float32],
    ) -> None:
        """Add payments in order; see `models.features.accounts.observe`."""
        self._touched.rows(row)
        observe(self.state, row, event_ms, amount, out)

    def learn_frauds(
        self, row: NDArray[np.int64], event_ms: NDArray[np.int64], known_ms: NDArray[np.int64]
    ) -> None:
        """Note frauds that became known."""
        self._touched.rows(row)
        learn_frauds(self.state, row, event_ms, known_ms)

    def rescale(self, factor: float) -> None:
        """Bring all accounts to another unit; see `models.features.accounts.rescale`."""
        self._touched.span(0, self.size)
        rescale(self.state[: self.size], factor)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        return {"state": self.state[: self.size].view(np.uint8), "keys": self.keys[: self.size]}

    def touched(self) -> dict[str, TouchedPages]:
        """Return array -> pages that may have changed since they were copied."""
        return {"state": self._touched, "keys": self._touched_keys}

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        stored = np.ascontiguousarray(arrays["state"]).view(ACCOUNT).reshape(-1)
        keys = np.asarray(arrays["keys"], np.uint64)
        self.size = len(keys)
        self._reserve(self.size + _FIRST_ROWS)
        self.state[: self.size], self.keys[: self.size] = stored, keys
        self._index = KeyIndex()
        self._index.add(keys)
        self._rows_of.forget()
        for pages in self.touched().values():
            pages.clear()
