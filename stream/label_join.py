"""Joins labels to the log of scored transactions; what comes too early is parked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from models.features.key_index import ABSENT
from models.records import Label
from stream.row_log import FRAUD, LEGIT, RowLog


class Rejected(NamedTuple):
    """A record that was not used: its position in the input, a short reason, what was expected."""

    row: int
    reason: str
    detail: str


class ParkedLabel(NamedTuple):
    """A label whose transaction has not been seen yet."""

    transaction_hash: int
    is_fraud: bool
    labelled_at_ms: int


def hash_ids(transaction_ids: Sequence[str]) -> NDArray[np.uint64]:
    """Return the 64-bit hash under which each transaction is held, uint64 of shape (n,)."""
    hashes = map(xxhash.xxh3_64_intdigest, map(str.encode, transaction_ids))
    return np.fromiter(hashes, np.uint64, len(transaction_ids))


@dataclass(slots=True)
class LabelJoin:
    """Outcomes that were said, until the next tick learns them.

    Attributes
    ----------
    parked
        Transaction hash -> label without a transaction; the oldest go beyond ``max_parked``.
    fresh
        Hashes of the transactions whose outcome came since the last tick, in order of arrival; one
        may come twice when a legitimate one turned out to be fraud. Never rows: they move.
    joined, duplicates, contradicting, dropped
        Labels so far by what became of them.
    """

    max_parked: int = 1_000_000
    parked: dict[int, ParkedLabel] = field(default_factory=dict)
    fresh: list[int] = field(default_factory=list)
    joined: int = 0
    duplicates: int = 0
    contradicting: int = 0
    dropped: int = 0

    def learn(self, log: RowLog, labels: Sequence[Label], tick_ms: int) -> list[Rejected]:
        """Settle the labels' transactions; park where there is none.

        A label that repeats is counted. Legitimate -> fraud is a late chargeback and is learnt;
        fraud -> legitimate contradicts what was learnt and is refused.
        """
        hashes = hash_ids([label.transaction_id for label in labels])
        rows = log.find(hashes)
        parked = [
            ParkedLabel(one, label.is_fraud, label.labelled_at_ms)
            for one, label in zip(hashes.tolist(), labels, strict=True)
        ]
        for i in np.flatnonzero(rows == ABSENT).tolist():
            self._park(parked[i])
        held = np.flatnonzero(rows != ABSENT).tolist()
        refused = self._settle(log, rows[held], [parked[i] for i in held], tick_ms)
        detail = "expected no change, got legitimate after fraud"
        return [Rejected(held[i], "contradicting_label", detail) for i in refused]

    def _park(self, label: ParkedLabel) -> None:
        if label.transaction_hash in self.parked:
            self.duplicates += 1
            return
        self.parked[label.transaction_hash] = label
        if len(self.parked) > self.max_parked:
            del self.parked[next(iter(self.parked))]
            self.dropped += 1

    def unpark(self, log: RowLog, added: slice, tick_ms: int) -> None:
        """Settle parked labels of transactions that were just added.

        Parameters
        ----------
        log
            Of the transactions.
        added
            Its rows that are new.
        tick_ms
            The last tick that was learnt.
        """
        if not self.parked:
            return
        new = log.at(np.arange(added.start, added.stop)).hash.tolist()
        found = [i for i, transaction_hash in enumerate(new) if transaction_hash in self.parked]
        labels = [self.parked.pop(new[i]) for i in found]
        self._settle(log, np.array(found, np.int64) + added.start, labels, tick_ms)

    def _settle(
        self, log: RowLog, rows: NDArray[np.int64], labels: Sequence[ParkedLabel], tick_ms: int
    ) -> list[int]:
        """Write outcomes of rows, one after the other; return the positions of what is refused."""
        if not labels:
            return []
        held = log.at(rows)
        before = dict(zip(rows.tolist(), held.outcome.tolist(), strict=True))
        events, refused, settled = held.event_ms.tolist(), [], {}
        for i, (row, label) in enumerate(zip(rows.tolist(), labels, strict=True)):
            wanted = FRAUD if label.is_fraud else LEGIT
            if before[row] == wanted:
                self.duplicates += 1
            elif before[row] == FRAUD:
                self.contradicting += 1
                refused.append(i)
            else:
                # after the last tick that was learnt: at or before a tick is what was learnt by it
                settled[row] = wanted, max(label.labelled_at_ms, tick_ms + 1, events[i])
                before[row] = wanted
                self.fresh.append(label.transaction_hash)
                self.joined += 1
        if settled:
            outcome, known_ms = np.array(list(settled.values()), np.int64).T
            log.settle(np.array(list(settled), np.int64), outcome.astype(np.int8), known_ms)
        return refused

    def take_fresh(self, log: RowLog, until_ms: int) -> NDArray[np.int64]:
        """Return and forget the settled rows whose outcome was known by ``until_ms``."""
        if not self.fresh:
            return np.empty(0, np.int64)
        rows = self._fresh_rows(log)
        known = log.at(rows).known_ms <= until_ms
        self.fresh = log.at(rows[~known]).hash.tolist()
        return rows[known]

    def _fresh_rows(self, log: RowLog) -> NDArray[np.int64]:
        found = np.unique(log.find(np.array(self.fresh, np.uint64)))
        held: NDArray[np.int64] = found[found != ABSENT]
        return held

    def first_fresh(self, log: RowLog) -> int:
        """Return the first row whose outcome is still to be learnt; the log's size for none."""
        return int(self._fresh_rows(log).min(initial=log.size))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays."""
        parked = list(self.parked.values())
        counts = [self.joined, self.duplicates, self.contradicting, self.dropped]
        return {
            "parked_hash": np.array([p.transaction_hash for p in parked], np.uint64),
            "parked_fraud": np.array([p.is_fraud for p in parked], np.bool_),
            "parked_ms": np.array([p.labelled_at_ms for p in parked], np.int64),
            "fresh": np.array(self.fresh, np.uint64),
            "counts": np.array(counts, np.int64),
        }

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        columns = [
            np.asarray(arrays[f"parked_{name}"]).tolist() for name in ("hash", "fraud", "ms")
        ]
        self.parked = {row[0]: ParkedLabel(*row) for row in zip(*columns, strict=True)}
        self.fresh = np.asarray(arrays["fresh"]).tolist()
        counts = np.asarray(arrays["counts"]).tolist()
        self.joined, self.duplicates, self.contradicting, self.dropped = counts
