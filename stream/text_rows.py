"""Texts to rows of a table, by digests that are kept in memory alone."""

from collections.abc import Callable, Sequence
from itertools import repeat

import numpy as np
import xxhash
from numpy.typing import NDArray

from models.features.digest_index import ABSENT, DigestIndex

_Text = str | None


def seed_of(secret: bytes) -> int:
    """Return the seed of digests, which nobody knows who does not know the secret."""
    return xxhash.xxh3_64_intdigest(b"rows\x00" + secret)


class TextRows:
    """Remembers the row of every text that was asked for.

    A digest costs a tenth of the keyed hash under which a row is stored, and an array of digests
    misses the processor's caches less often than a dictionary of texts.

    Parameters
    ----------
    add
        Returns the rows, int64 of shape (n,), of n different texts that are not known yet.
    seed
        Of the digests, 64 bits: with one that nobody knows no texts can be made that collide.
    """

    def __init__(self, add: Callable[[list[str]], NDArray[np.int64]], seed: int) -> None:
        self._add = add
        self._seed = seed
        self.forget()

    def forget(self) -> None:
        """Know nothing: rows are others now."""
        self._index = DigestIndex()

    def rows(self, texts: Sequence[_Text]) -> NDArray[np.int64]:
        """Return the texts' rows, -1 where there is none; what is not known is added, in order."""
        if None in texts:
            named = [i for i, text in enumerate(texts) if text is not None]
            rows = np.full(len(texts), ABSENT, np.int64)
            rows[named] = self._rows([texts[i] for i in named])  # type: ignore[misc]  # no None
            return rows
        return self._rows(texts)  # type: ignore[arg-type]  # no None

    def _rows(self, texts: Sequence[str]) -> NDArray[np.int64]:
        digests = self._digests(texts)
        rows, is_known = self._index.find(digests)
        if is_known:
            return rows
        new: dict[str, int] = {}
        for i in np.flatnonzero(rows == ABSENT).tolist():
            new.setdefault(texts[i], i)
        self._index.put(digests[list(new.values())], self._add(list(new)))
        return self._index.find(digests)[0]

    def _digests(self, texts: Sequence[str]) -> NDArray[np.uint64]:
        encoded = map(str.encode, texts)
        joined = b"".join(map(xxhash.xxh3_128_digest, encoded, repeat(self._seed)))
        return np.frombuffer(joined, np.uint64).reshape(-1, 2)
