"""The columnar log of scored transactions: pending until an outcome is known, then kept a while.

One row serves the label join, learning, the blend's window and re-encoding for a new basis. Rows
are appended in the order of scoring and dropped from the front when older than the retention, or
more than it allows. A row stays where it was written until it is dropped, so that what was stored
of it stays stored, see `stream.stretches`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, cast
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from models.features.accounts import N_FEATURES as N_ACCOUNT
from models.features.key_index import ABSENT, KeyIndex
from models.features.room import Room
from models.matured import Matured
from stream.stretches import Stretches
from stream.touched import TouchedPages

PENDING, LEGIT, FRAUD = 0, 1, 2


class _Columns:
    """Columns of rows by name."""

    def column(self, name: str) -> NDArray[np.generic]:
        """Return a column of these rows."""
        raise NotImplementedError

    @property
    def hash(self) -> NDArray[np.uint64]:
        """Hashes of the transactions' ids."""
        return cast("NDArray[np.uint64]", self.column("hash"))

    @property
    def event_ms(self) -> NDArray[np.int64]:
        """Event times."""
        return cast("NDArray[np.int64]", self.column("event_ms"))

    @property
    def arrival_ms(self) -> NDArray[np.int64]:
        """Watermarks at which rows were scored, ascending."""
        return cast("NDArray[np.int64]", self.column("arrival_ms"))

    @property
    def known_ms(self) -> NDArray[np.int64]:
        """When outcomes became known, -1 while pending."""
        return cast("NDArray[np.int64]", self.column("known_ms"))

    @property
    def outcome(self) -> NDArray[np.int8]:
        """``PENDING``, ``LEGIT`` or ``FRAUD``."""
        return cast("NDArray[np.int8]", self.column("outcome"))

    @property
    def account(self) -> NDArray[np.int32]:
        """Rows of the account table."""
        return cast("NDArray[np.int32]", self.column("account"))

    @property
    def entity(self) -> NDArray[np.int32]:
        """Rows of the entity tables, (n, n_entities)."""
        return cast("NDArray[np.int32]", self.column("entity"))

    @property
    def features(self) -> NDArray[np.float32]:
        """Features with the consortium's evidence, (n, n_features)."""
        return cast("NDArray[np.float32]", self.column("features"))

    @property
    def own(self) -> NDArray[np.float32]:
        """Entity features from own evidence alone, (n, n_own)."""
        return cast("NDArray[np.float32]", self.column("own"))

    @property
    def scores(self) -> NDArray[np.float32]:
        """The experts' log-odds, (n, n_experts)."""
        return cast("NDArray[np.float32]", self.column("scores"))


class LoggedRows(_Columns):
    """Some rows of a log; a column is copied when it is asked for.

    Parameters
    ----------
    columns
        Of the log.
    places
        int64 of shape (n,): where the rows lie in them.
    fixed
        Columns of these rows that stay as they were, whatever becomes of the log's.
    """

    def __init__(
        self,
        columns: Mapping[str, NDArray[np.generic]],
        places: NDArray[np.int64],
        fixed: Mapping[str, NDArray[np.generic]] = MappingProxyType({}),
    ) -> None:
        self._columns, self._places, self._fixed = columns, places, fixed

    def column(self, name: str) -> NDArray[np.generic]:
        """Return a column of these rows, a copy or one that is fixed."""
        fixed = self._fixed.get(name)
        return self._columns[name][self._places] if fixed is None else fixed

    def part(self, rows: slice) -> "LoggedRows":
        """Return some of these rows."""
        fixed = {name: column[rows] for name, column in self._fixed.items()}
        return LoggedRows(self._columns, self._places[rows], fixed)

    def fixed(self, *names: str) -> "LoggedRows":
        """Return these rows with some columns as they are now."""
        return LoggedRows(self._columns, self._places, {n: self.column(n) for n in names})

    def matured(self) -> Matured:
        """Return these rows as the consortium's expert sees them; all have an outcome."""
        return Matured(
            features=self.features,
            is_fraud=self.outcome == FRAUD,
            hashes=self.hash,
            known_ms=self.known_ms,
            accounts=self.account.astype(np.int64),
            base_logits=self.scores[:, 1].astype(np.float64),
        )

    def matured_as_own(self) -> Matured:
        """Return these rows as the own expert sees them; all have an outcome."""
        shared = self.matured()
        return replace(shared, features=own_rows(shared.features, self.own))


class RetainedRows:
    """Matured rows of a log as one of the experts sees them, copied a block at a time.

    Parameters
    ----------
    log
        Not to be changed meanwhile.
    index
        int64 of shape (n,): which rows.
    view
        How they are seen.
    """

    def __init__(
        self, log: "RowLog", index: NDArray[np.int64], view: Callable[[LoggedRows], Matured]
    ) -> None:
        self._log, self._index, self._view = log, index, view

    def blocks(self, n: int = 50_000) -> Iterator[Matured]:
        """Yield the rows in order, at most ``n`` at a time."""
        for start in range(0, len(self._index), n):
            yield self.block(slice(start, start + n))

    def block(self, rows: slice) -> Matured:
        """Return some of the rows."""
        return self._view(self._log.at(self._index[rows]))

    def whole(self) -> Matured:
        """Return all at once."""
        return self.block(slice(None))


class RowLog(_Columns):
    """Growing columns with a moving front; each as a whole is a copy where it lies in pieces.

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
    first_pending
        Rows before it have an outcome.
    version
        Changes when rows are dropped, or their features or what is made of these are others.
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
        self.first_pending = self.version = 0
        self._dropped = 0
        self._holders: WeakSet[LoggedRows] = WeakSet()
        self._positions = KeyIndex()
        self._touched = {
            name: TouchedPages(np.dtype(layout).itemsize) for name, layout in self._layout.items()
        }
        self._begin(Stretches())

    def _begin(self, stretches: Stretches) -> None:
        self._stretches = stretches
        self._rooms = {name: Room(*layout) for name, layout in self._layout.items()}
        self._columns: dict[str, NDArray[np.generic]] = {}
        self._reach()

    def _reach(self) -> None:
        """Have all places that may be used in the columns."""
        n = self._stretches.n_places
        self._columns |= {name: room.rows(n) for name, room in self._rooms.items()}

    @property
    def size(self) -> int:
        """Rows held."""
        return self._stretches.size

    def column(self, name: str) -> NDArray[np.generic]:
        """Return a column of all rows held, a view or, where they lie in pieces, a copy."""
        column = self._columns[name]
        parts = [column[places] for _, places in self._stretches.spans(0, self.size)]
        return parts[0] if len(parts) == 1 else np.concatenate([column[:0], *parts])

    def at(self, index: NDArray[np.int64]) -> LoggedRows:
        """Return some of the rows held, given by their positions."""
        return LoggedRows(self._columns, self._stretches.places(index))

    def newest(self, n: int) -> LoggedRows:
        """Return the last rows, at most ``n``, oldest first."""
        return self.at(np.arange(max(self.size - n, 0), self.size))

    def append(self, rows: Mapping[str, NDArray[np.generic]]) -> slice:
        """Add rows; every column but ``known_ms`` and ``outcome`` must be given."""
        n = len(rows["hash"])
        first, n_places = self.size, self._stretches.n_places
        given = self._stretches.append(n)
        if self._stretches.n_places > n_places:
            self._reach()
        start = 0
        for places in given:
            of_given = slice(start, start + places.stop - places.start)
            for pages in self._touched.values():
                pages.span(places.start, places.stop)
            for name, column in rows.items():
                self._columns[name][places] = column[of_given]
            self._columns["known_ms"][places] = -1
            self._columns["outcome"][places] = PENDING
            start = of_given.stop
        self._positions.add(cast("NDArray[np.uint64]", rows["hash"]))
        return slice(first, first + n)

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the rows of transactions, `ABSENT` for those that are not held."""
        positions = self._positions.find(hashes)
        return np.where(positions == ABSENT, ABSENT, positions - self._dropped)

    def settle(
        self, index: NDArray[np.int64], outcome: NDArray[np.int8], known_ms: NDArray[np.int64]
    ) -> None:
        """Write outcomes."""
        places = self._stretches.places(index)
        for name, values in (("outcome", outcome), ("known_ms", known_ms)):
            self._touched[name].rows(places)
            self._columns[name][places] = values

    def change_features(self, change: Callable[[NDArray[np.float32]], None]) -> None:
        """Have ``features`` of all rows held changed in place, a stretch at a time."""
        self.version += 1
        column = cast("NDArray[np.float32]", self._columns["features"])
        for _, places in self._stretches.spans(0, self.size):
            self._touched["features"].span(places.start, places.stop)
            change(column[places])

    def _scored_by(self, until_ms: int, side: Literal["left", "right"]) -> int:
        """Return how many rows were scored before a watermark, or at it ("right")."""
        arrival_ms, n = self._columns["arrival_ms"], 0
        for rows, places in self._stretches.spans(0, self.size):
            n = rows.start + int(np.searchsorted(arrival_ms[places], until_ms, side=side))
            if n < rows.stop:
                break
        return n

    def due(self, until_ms: int) -> NDArray[np.int64]:
        """Return the pending rows that were scored at or before a watermark, and move past them."""
        end = self._scored_by(until_ms, "right")
        rows = np.arange(self.first_pending, end, dtype=np.int64)
        self.first_pending = max(self.first_pending, end)
        pending: NDArray[np.int64] = rows[self.at(rows).outcome == PENDING]
        return pending

    def matured_since(self, known_ms: int) -> NDArray[np.int64]:
        """Return the rows whose outcome became known at or after an instant."""
        return np.flatnonzero(self.known_ms >= max(known_ms, 0))

    def hold(self, index: NDArray[np.int64]) -> LoggedRows:
        """Return some rows for another thread, with their outcomes as they are now.

        As long as they live no rows are dropped.
        """
        held = self.at(index).fixed("outcome", "known_ms")
        self._holders.add(held)
        return held

    def drop_before(self, arrival_ms: int, *, keep_from: int, max_matured: int) -> None:
        """Forget the rows scored before a watermark, but none pending and none from a row on.

        Of more than ``max_matured`` rows before the first that is pending, the oldest go too.
        While rows are held for somebody, none go: they do the next time.
        """
        if self._holders:
            return
        n = self._scored_by(arrival_ms, "left")
        n = min(max(n, self.first_pending - max_matured), self.first_pending, keep_from)
        if n <= 0:
            return
        self._positions.remove_oldest(self.at(np.arange(n)).hash)
        self.version += 1
        self._stretches.drop(n)
        self.first_pending -= n
        self._dropped += n

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views): the columns, and where rows lie in them."""
        used = {name: column[: self._stretches.n_used] for name, column in self._columns.items()}
        return used | self._stretches.arrays()

    def touched(self) -> dict[str, TouchedPages]:
        """Return array -> pages that may have changed since they were copied."""
        return self._touched

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave; ``first_pending`` is set by the caller."""
        stretches = Stretches()
        stretches.load(*(np.asarray(arrays[name], np.int64) for name in ("stretches", "places")))
        self._begin(stretches)
        for name, column in self._columns.items():
            column[: stretches.n_used] = arrays[name]
        self._dropped = 0
        self._positions = KeyIndex()
        self._positions.add(self.hash)
        for pages in self._touched.values():
            pages.clear()


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
