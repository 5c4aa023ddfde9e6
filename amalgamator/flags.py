"""What members' flags of entities are worth to one another: the trust in a sender's evidence; pure.

A member *flags* an entity on the days after one on which it reports a fraud there. Two questions
are asked of each other member r, which testifies on a sender s by its own outcomes alone: 1 do
frauds come to r where s flagged, and 2 do frauds come to s where r flagged? Both are held against
what flags are worth in general, to r itself and among the others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amalgamator.policy import TrustPolicy
from amalgamator.state import Pairs
from models.codec import cell_keys
from models.entity_risk import STEP

_BLOCK = 4_096
Square = NDArray[np.float64]


class Flags(NamedTuple):
    """Row s, column r: outcomes and frauds of r at the entities that s had flagged just before."""

    n: Square
    f: Square


class _Outcomes(NamedTuple):
    """One row per (cell of evidence): entity, member and day as numbers from 0, and its counts."""

    entity: NDArray[np.int64]
    member: NDArray[np.int64]
    day: NDArray[np.int64]
    n: NDArray[np.float64]
    f: NDArray[np.float64]

    def take(self, rows: NDArray[np.intp] | slice) -> "_Outcomes":
        """Return some of the rows."""
        return _Outcomes(
            self.entity[rows], self.member[rows], self.day[rows], self.n[rows], self.f[rows]
        )


def count_flags(pairs: Pairs, members: Sequence[str], policy: TrustPolicy) -> Flags:
    """Count outcomes where others had flagged, over the days of ``pairs``.

    Only entities that two members saw and one flagged are looked at. Sums are of whole numbers,
    so their order does not matter; memory is bounded by blocks of entities.

    Parameters
    ----------
    pairs
        Evidence, of the days to be judged.
    members
        Of whom rows and columns are, in this order.
    policy
        Its ``flag_d``.
    """
    size = len(members)
    flags = Flags(np.zeros((size, size)), np.zeros((size, size)))
    outcomes = _shared(_outcomes(pairs, members), size)
    if not len(outcomes.entity):
        return flags
    n_days = int(outcomes.day.max()) + 1
    order = np.argsort(outcomes.entity, kind="stable")
    outcomes = outcomes.take(order)
    for first in range(0, int(outcomes.entity[-1]) + 1, _BLOCK):
        rows = slice(*np.searchsorted(outcomes.entity, [first, first + _BLOCK]).tolist())
        shape = (size, min(_BLOCK, int(outcomes.entity[-1]) + 1 - first), n_days)
        block = outcomes.take(rows)
        _add_block(block._replace(entity=block.entity - first), shape, policy.flag_d, flags)
    return flags


def _outcomes(pairs: Pairs, members: Sequence[str]) -> _Outcomes:
    """Return all cells; the numbers of entities are those of their sorted names."""
    place = {member: i for i, member in enumerate(members)}
    held = [(place[k.member], k.bucket, h.contribution.arrays) for k, h in pairs]
    if not held:
        none, nothing = np.empty(0, np.int64), np.empty(0)
        return _Outcomes(none, none, none, nothing, nothing)
    first = min(day for _, day, _ in held)
    sizes = [len(arrays["n"]) for _, _, arrays in held]
    columns = {
        name: np.concatenate([arrays[name] for _, _, arrays in held])
        for name in ("name", "kind", "hour", "n", "f")
    }
    keys = cell_keys(columns | {"hour": np.zeros(len(columns["n"]), np.uint8)})
    order = np.lexsort(keys[::-1])
    is_new = np.zeros(len(order), np.bool_)
    for key in keys:
        is_new[1:] |= key[order][1:] != key[order][:-1]
    entity = np.empty(len(order), np.int64)
    entity[order] = np.cumsum(is_new)
    return _Outcomes(
        entity,
        np.repeat([member for member, _, _ in held], sizes),
        np.repeat([day - first for _, day, _ in held], sizes),
        columns["n"].astype(np.float64),
        columns["f"].astype(np.float64),
    )


def _shared(outcomes: _Outcomes, n_members: int) -> _Outcomes:
    """Return the cells of entities that two members saw and one flagged, numbered anew."""
    if not len(outcomes.entity):
        return outcomes
    n_entities = int(outcomes.entity.max()) + 1
    seen = np.zeros((n_entities, n_members), np.bool_)
    seen[outcomes.entity, outcomes.member] = True
    is_flagged = np.bincount(outcomes.entity, outcomes.f, n_entities) > 0.0
    is_used = is_flagged & (seen.sum(axis=1) >= 2)
    number = np.cumsum(is_used) - 1
    rows = np.flatnonzero(is_used[outcomes.entity])
    kept = outcomes.take(rows)
    return kept._replace(entity=number[kept.entity])


def _add_block(block: _Outcomes, shape: tuple[int, int, int], flag_d: int, flags: Flags) -> None:
    n, f = np.zeros(shape), np.zeros(shape)
    place = (block.member, block.entity, block.day)
    np.add.at(n, place, block.n)
    np.add.at(f, place, block.f)
    for sender in range(shape[0]):
        had = _flagged_before(f[sender] > 0.0, flag_d)
        where = np.nonzero(had)
        for receiver in range(shape[0]):
            flags.n[sender, receiver] += n[receiver][where].sum()
            flags.f[sender, receiver] += f[receiver][where].sum()


def _flagged_before(fraud: NDArray[np.bool_], flag_d: int) -> NDArray[np.bool_]:
    """Return whether one of the ``flag_d`` days before had a fraud; shape (n_entities, n_days)."""
    flagged = np.zeros(fraud.shape, np.bool_)
    for lag in range(1, min(flag_d, fraud.shape[1] - 1) + 1):
        flagged[:, lag:] |= fraud[:, :-lag]
    return flagged


def voices(flags: Flags, policy: TrustPolicy) -> Square:
    """Return what each member says of each other: row s, column r, 1 for as expected, NaN for s.

    The lower of two ratios of found to expected frauds: of r where s flagged, and of s where r
    flagged. What is expected follows the fraud rate of flagged entities: r's own at those that r
    flagged, or the median between the others where that is lower, as it is with frauds that stay
    with one account. ``prior_frauds`` that came as expected are added to both sides.
    """
    size = len(flags.n)
    rate = np.divide(flags.f, flags.n, out=np.full((size, size), np.nan), where=flags.n > 0.0)
    said = np.full((size, size), np.nan)
    for s in range(size):
        for r in range(size):
            if s == r:
                continue
            others = [q for q in range(size) if q not in (s, r)]
            said[s, r] = min(
                _ratio(flags, (s, r), rate[[r, *others], r], policy),
                _ratio(flags, (r, s), rate[r, [r, *others]], policy),
            )
    return said


def _ratio(
    flags: Flags, place: tuple[int, int], rates: NDArray[np.float64], policy: TrustPolicy
) -> float:
    """Return found / expected frauds at one place; ``rates``: r's own, then those of others."""
    others = rates[1:][~np.isnan(rates[1:])]
    known = [rates[0], *([np.median(others)] if len(others) else [])]
    known = [one for one in known if not np.isnan(one)]
    if not known:
        return 1.0
    expected = float(flags.n[place] * min(known))
    prior = policy.prior_frauds
    return (float(flags.f[place]) + prior) / (expected + prior)


def evidence_trust(said: Square) -> NDArray[np.float64]:
    """Return one ratio per member: the most favourable one that half of the others stay below.

    More than half of the other members must find it low before it is low, each having one voice;
    so two of five can neither vouch for each other nor get a third expelled. Fewer than three
    members judge nobody.
    """
    size = len(said)
    if size < 3:
        return np.ones(size)
    votes = [np.sort(np.delete(said[s], s)) for s in range(size)]
    return np.array([one[len(one) // 2] for one in votes])


def evidence_weight(ratio: float, policy: TrustPolicy) -> float:
    """Return the factor on a member's counts: clip(ratio / full_ratio, 0, 1), 0 below a half.

    Rounded down to a multiple of 1 / 16, so that products with whole counts are exact.
    """
    weight = float(np.floor(min(ratio / policy.full_ratio, 1.0) * STEP) / STEP)
    return weight if weight >= 0.5 else 0.0
