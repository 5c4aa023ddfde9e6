"""The amalgamator's whole state: the newest accepted contribution of every key; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from models.summary import Contribution, ContributionKey, Part

CLOSING_PART: Part = "epoch"


class Held(NamedTuple):
    """A contribution with the ``seq`` of the envelope that brought it."""

    contribution: Contribution
    seq: int


Pairs = Sequence[tuple[ContributionKey, Held]]


@dataclass(frozen=True, slots=True, eq=False)
class FoldState:
    """The newest accepted contribution of each key; merges by taking the higher ``seq`` per key."""

    newest: Mapping[ContributionKey, Held] = field(default_factory=dict)

    def add(self, contribution: Contribution, seq: int) -> "FoldState":
        """Return the state with this contribution, unless one as new is held for its key."""
        held = self.newest.get(contribution.key)
        if held is not None and held.seq >= seq:
            return self
        return FoldState({**self.newest, contribution.key: Held(contribution, seq)})

    def merge(self, other: "FoldState") -> "FoldState":
        """Return the newest of both for each key; commutative, associative, idempotent."""
        merged = dict(self.newest)
        for key, held in other.newest.items():
            mine = merged.get(key)
            if mine is None or mine.seq < held.seq:
                merged[key] = held
        return FoldState(merged)

    def without(self, members: frozenset[str]) -> "FoldState":
        """Return the state as if these members had never spoken."""
        return FoldState({k: held for k, held in self.newest.items() if k.member not in members})

    def until(self, epoch: int) -> "FoldState":
        """Return the contributions of epochs up to ``epoch``."""
        return FoldState(
            {k: held for k, held in self.newest.items() if held.contribution.epoch <= epoch}
        )

    def closed_epoch(self, workers: Sequence[tuple[str, str]]) -> int | None:
        """Return the latest epoch that all these (member, worker) closed; None unless all did."""
        held = [self.newest.get(ContributionKey(*worker, CLOSING_PART, 0)) for worker in workers]
        epochs = [one.contribution.epoch for one in held if one is not None]
        return min(epochs) if epochs and len(epochs) == len(workers) else None

    def newest_epoch(self) -> int | None:
        """Return the highest epoch of any contribution, None if there is none."""
        return max((held.contribution.epoch for held in self.newest.values()), default=None)

    def pairs(self) -> Pairs:
        """Return what is folded, sorted by key: all but the parts that close an epoch."""
        return sorted(
            (pair for pair in self.newest.items() if pair[0].part != CLOSING_PART),
            key=lambda pair: pair[0],
        )


def of_part(pairs: Pairs, part: Part) -> Pairs:
    """Return the pairs of one part, in their order."""
    return [pair for pair in pairs if pair[0].part == part]


def matured_of_workers(pairs: Pairs) -> dict[tuple[str, str], int]:
    """Return (member, worker) -> matured transactions, by its histograms."""
    return {
        (key.member, key.worker): held.contribution.n for key, held in of_part(pairs, "histograms")
    }


def by_bucket(pairs: Pairs) -> dict[int, Pairs]:
    """Return the pairs of each bucket, buckets ascending and pairs in their order."""
    ordered = sorted(pairs, key=lambda pair: pair[0].bucket)
    return {
        bucket: list(group) for bucket, group in groupby(ordered, key=lambda pair: pair[0].bucket)
    }
