"""Each member's statistics in one, buckets decayed as in the fold and added, oldest first; pure.

Sums are made in float64 and handed out as float32, which halves what a judgement reads, where that
cannot matter (`amalgamator.narrow`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from amalgamator.harm import MemberSums
from amalgamator.narrow import narrowed
from amalgamator.policy import FoldConfig
from amalgamator.state import Held, Pairs, by_bucket
from amalgamator.sums import Sums, bucket_decay
from amalgamator.target import Target, is_same_target, plain_arrays
from models.packed import add_scaled
from models.summary import ContributionKey


class _Piece(NamedTuple):
    """A contribution, and the decay of its bucket."""

    key: ContributionKey
    held: Held
    decay: float


class _Older(NamedTuple):
    """What the sum of all but a member's newest contribution was made of, and that sum."""

    pieces: tuple[tuple[ContributionKey, int, float], ...]
    target: Target | None
    sums: Sums


class MemberSummer:
    """Adds up, and remembers what does not change from one time to the next: the older buckets.

    What is remembered gives the same bits as adding up from nothing.
    """

    def __init__(self) -> None:
        self._older: dict[str, _Older] = {}

    def sums(
        self,
        statistics: Pairs,
        matured: Mapping[str, int],
        config: FoldConfig,
        target: Target | None = None,
    ) -> dict[str, MemberSums]:
        """Return each member's sums, sorted by name.

        Parameters
        ----------
        statistics
            Sorted by key; of one basis, or all such that ``target`` takes.
        matured
            Member -> matured transactions, as its histograms say.
        config
            Half-life and length of a bucket.
        target
            The basis for which they count; None: as they were published.
        """
        of_member: dict[str, list[_Piece]] = {}
        buckets = by_bucket(statistics)
        newest = max(buckets, default=0)
        for bucket, pairs in buckets.items():
            decay = bucket_decay(bucket, newest, config)
            for key, held in pairs:
                of_member.setdefault(key.member, []).append(_Piece(key, held, decay))
        self._older = {member: self._older[member] for member in of_member if member in self._older}
        ridge = config.ridge / max(len(of_member), 1)
        return {
            member: self._of(member, pieces, matured.get(member), target, ridge=ridge)
            for member, pieces in sorted(of_member.items())
        }

    def _of(
        self,
        member: str,
        pieces: list[_Piece],
        n_matured: int | None,
        target: Target | None,
        *,
        ridge: float,
    ) -> MemberSums:
        older = self._older_of(member, pieces[:-1], target, _width(pieces[-1], target))
        total = Sums(older.curvature.copy(), older.gradient.copy())
        _add(total, pieces[-1], target)
        return MemberSums(
            curvature=narrowed(total.curvature, len(total.gradient), ridge=ridge),
            gradient=total.gradient,
            n=float(sum(piece.decay * piece.held.contribution.n for piece in pieces)),
            n_published=sum(piece.held.contribution.n for piece in pieces),
            n_matured=n_matured,
        )

    def _older_of(
        self, member: str, pieces: list[_Piece], target: Target | None, n_weights: int
    ) -> Sums:
        identity = tuple((piece.key, piece.held.seq, piece.decay) for piece in pieces)
        known = self._older.get(member)
        if known is not None and known.pieces == identity and is_same_target(known.target, target):
            return known.sums
        sums = Sums.zero(n_weights)
        for piece in pieces:
            _add(sums, piece, target)
        self._older[member] = _Older(identity, target, sums)
        return sums


def _width(piece: _Piece, target: Target | None) -> int:
    if target is not None:
        return target.basis.n_weights
    return len(piece.held.contribution.arrays["gradient"])


def _add(sums: Sums, piece: _Piece, target: Target | None) -> None:
    one = piece.held.contribution
    arrays = plain_arrays(one) if target is None else target.arrays(one)
    add_scaled(sums.curvature, piece.decay, arrays.curvature)
    sums.gradient[:] += np.multiply(arrays.gradient, piece.decay)
