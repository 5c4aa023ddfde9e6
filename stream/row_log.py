"""The columnar log of scored transactions: pending until an outcome is known, then kept a while.

One row serves the label join, learning, the blend's window and re-encoding for a new basis. Rows
are appended in the order of scoring and dropped from the front when older than the retention, or
more than it allows.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from models.features.accounts import N_FEATURES as N_ACCOUNT
from models.features.key_index import ABSENT, KeyIndex
from stream.growth import grow
from stream.touched import TouchedPages

PENDING, LEGIT, FRAUD = 0, 1, 2
_FIRST_CAPACITY = 4_096


class RowLog:
    """Growing columns with a moving front.

    Parameters
    ----------
    n_entities
        Entity columns of a transaction.
    n_features, n_own
        Columns of ``features`` (own plus consortium evidence) and of ``own`` (the entity features
        from own evidence alone).
    n_experts
        Columns of ``scores``.

    Attributes
    ----------
    columns
        Name -> array whose first ``size`` entries are rows: ``hash`` uint64 (transaction id),
        ``event_ms``, ``arrival_ms`` (watermark when it was scored, ascending), ``known_ms`` int64
        (-1 while pending), ``outcome`` int8, ``account`` int32, ``entity`` int32
        (n, n_entities), ``features`` float32, ``own`` float32, ``scores`` float32 log-odds.
    size
        Rows held.
    first_pending
        Rows before it have an outcome.
    """

    def __init__(self, *, n_entities: int, n_features: int, n_own: int, n_experts: int) -> None:
        self._layout: dict[str, tuple[str, tuple[int, ...]]] = {
            "hash": ("u8", ()),
            "event_ms": ("i8", ()),
            "arrival_ms": ("i8", ()),
            "known_ms": ("i8", ()),
            "outcome": ("i1", ()),
            "account": ("i4", ()),
            "entity": ("i4", (n_entities,)),
            "features": ("f4", (n_features,)),
            "own": ("f4", (n_own,)),
            "scores": ("f4", (n_experts,)),
        }
        self.columns: dict[str, NDArray[np.generic]] = {}
        self.size = 0
        self.first_pending = 0
        self._dropped = 0
        self._positions = KeyIndex()
        self._touched = {
            name: TouchedPages(np.dtype((dtype, shape)).itemsize)
            for name, (dtype, shape) in self._layout.items()
        }
        self._reserve(_FIRST_CAPACITY)

    def _reserve(self, capacity: int) -> None:
        for name, (dtype, shape) in self._layout.items():
            if name in self.columns:
                grow(self.columns, name, capacity)
            else:
                self.columns[name] = np.zeros((capacity, *shape), dtype)

    @property
    def hash(self) -> NDArray[np.uint64]:
        """Hashes of the transactions' ids, a view of the rows held."""
        return cast("NDArray[np.uint64]", self._held("hash"))

    @property
    def event_ms(self) -> NDArray[np.int64]:
        """Event times, a view of the rows held."""
        return cast("NDArray[np.int64]", self._held("event_ms"))

    @property
    def arrival_ms(self) -> NDArray[np.int64]:
        """Watermarks at which rows were scored, ascending, a view of the rows held."""
        return cast("NDArray[np.int64]", self._held("arrival_ms"))

    @property
    def known_ms(self) -> NDArray[np.int64]:
        """When outcomes became known, -1 while pending, a view of the rows held."""
        return cast("NDArray[np.int64]", self._held("known_ms"))

    @property
    def outcome(self) -> NDArray[np.int8]:
        """``PENDING``, ``LEGIT`` or ``FRAUD``, a view of the rows held."""
        return cast("NDArray[np.int8]", self._held("outcome"))

    @property
    def account(self) -> NDArray[np.int32]:
        """Rows of the account table, a view of the rows held."""
        return cast("NDArray[np.int32]", self._held("account"))

    @property
    def entity(self) -> NDArray[np.int32]:
        """Rows of the entity tables, (n, n_entities), a view of the rows held."""
        return cast("NDArray[np.int32]", self._held("entity"))

    @property
    def features(self) -> NDArray[np.float32]:
        """Features with the consortium's evidence, (n, n_features), a view of the rows held."""
        return cast("NDArray[np.float32]", self._held("features"))

    @property
    def own(self) -> NDArray[np.float32]:
        """Entity features from own evidence alone, (n, n_own), a view of the rows held."""
        return cast("NDArray[np.float32]", self._held("own"))

    @property
    def scores(self) -> NDArray[np.float32]:
        """The experts' log-odds, (n, n_experts), a view of the rows held."""
        return cast("NDArray[np.float32]", self._held("scores"))

    def _held(self, name: str) -> NDArray[np.generic]:
        return self.columns[name][: self.size]

    def append(self, rows: Mapping[str, NDArray[np.generic]]) -> slice:
        """Add rows; every column but ``known_ms`` and ``outcome`` must be given."""
        n = len(rows["hash"])
        first, last = self.size, self.size + n
        if last > len(self.columns["hash"]):
            self._reserve(last + last // 8 + _FIRST_CAPACITY)
        for name, column in rows.items():
            self.columns[name][first:last] = column
        self.columns["known_ms"][first:last] = -1
        self.columns["outcome"][first:last] = PENDING
        self.size = last
        for pages in self._touched.values():
            pages.span(first, last)
        self._positions.add(self.hash[first:last])
        return slice(first, last)

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the rows of transactions, `ABSENT` for those that are not held."""
        positions = self._positions.find(hashes)
        return np.where(positions == ABSENT, ABSENT, positions - self._dropped)

    def settle(
        self, index: NDArray[np.int64], outcome: NDArray[np.int8], known_ms: NDArray[np.int64]
    ) -> None:
        """Write outcomes."""
        self.columns["outcome"][index] = outcome
        self.columns["known_ms"][index] = known_ms
        self._touched["outcome"].rows(index)
        self._touched["known_ms"].rows(index)

    def changed_features(self) -> None:
        """Take note that ``features`` was written over in every row held."""
        self._touched["features"].span(0, self.size)

    def due(self, until_ms: int) -> NDArray[np.int64]:
        """Return the pending rows that were scored at or before a watermark, and move past them."""
        end = int(np.searchsorted(self.arrival_ms, until_ms, side="right"))
        rows = np.arange(self.first_pending, end, dtype=np.int64)
        self.first_pending = max(self.first_pending, end)
        return rows[self.outcome[rows] == PENDING] if len(rows) else rows

    def matured_since(self, known_ms: int) -> NDArray[np.int64]:
        """Return the rows whose outcome became known at or after an instant."""
        return np.flatnonzero(self.known_ms >= max(known_ms, 0))

    def drop_before(self, arrival_ms: int, *, keep_from: int, max_matured: int) -> None:
        """Forget the rows scored before a watermark, but none pending and none from a row on.

        Of more than ``max_matured`` rows before the first that is pending, the oldest go too. An
        eighth of all must go before any does, since the others move.
        """
        n = int(np.searchsorted(self.arrival_ms, arrival_ms, side="left"))
        n = min(max(n, self.first_pending - max_matured), self.first_pending, keep_from)
        if n < self.size // 8:
            return
        for name, column in self.columns.items():
            self._touched[name].all()
            column[: self.size - n] = column[n : self.size].copy()
        self.size -= n
        self.first_pending -= n
        self._dropped += n
        self._positions.replace(self.hash, self._dropped)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        return {name: self._held(name) for name in self._layout}

    def touched(self) -> dict[str, NDArray[np.bool_]]:
        """Return array -> pages that may have changed since `stored`."""
        return {name: pages.marks(self.size) for name, pages in self._touched.items()}

    def stored(self) -> None:
        """Take note that `arrays` were stored."""
        for pages in self._touched.values():
            pages.clear()

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave; ``first_pending`` is set by the caller."""
        self.size = 0
        n = len(arrays["hash"])
        self._reserve(n + n // 4 + _FIRST_CAPACITY)
        self._positions = KeyIndex()
        self._dropped = 0
        self.append({k: v for k, v in arrays.items() if k not in {"known_ms", "outcome"}})
        self.columns["known_ms"][:n] = arrays["known_ms"]
        self.columns["outcome"][:n] = arrays["outcome"]
        self.stored()


def own_rows(features: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows as the own expert sees them: the account's, own evidence alone, attributes.

    Parameters
    ----------
    features
        float32 of shape (n, n_features): with all evidence.
    own
        float32 of shape (n, n_own): features of entities by own evidence.
    """
    attributes = features[:, N_ACCOUNT + own.shape[1] :]
    return np.concatenate([features[:, :N_ACCOUNT], own, attributes], axis=1)
