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
from scipy.sparse import csr_array

from amalgamator.policy import TrustPolicy
from amalgamator.state import Pairs
from models.entity_risk import STEP, cell_keys

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
    so their order does not matter.

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
    outcomes = _shared(_outcomes(pairs, members), size)
    if not len(outcomes.entity):
        return Flags(np.zeros((size, size)), np.zeros((size, size)))
    n_days = int(outcomes.day.max()) + 1
    shape = (size, (int(outcomes.entity.max()) + 1) * n_days)
    place = (outcomes.member, outcomes.entity * n_days + outcomes.day)
    flagged = _flagged_before(
        outcomes.take(np.flatnonzero(outcomes.f > 0.0)), n_days, policy.flag_d, shape
    )
    n, f = (csr_array((counts, place), shape=shape) for counts in (outcomes.n, outcomes.f))
    return Flags((flagged @ n.T).toarray(), (flagged @ f.T).toarray())


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
    is_flagged = np.bincount(outcomes.entity, outcomes.f, n_entities) > 0.0
    flagged = outcomes.take(np.flatnonzero(is_flagged[outcomes.entity]))
    seen = np.sort(flagged.entity * n_members + flagged.member)
    is_other = np.diff(seen, prepend=-1) > 0
    is_used = np.bincount(seen[is_other] // n_members, minlength=n_entities) >= 2
    number = np.cumsum(is_used) - 1
    kept = flagged.take(np.flatnonzero(is_used[flagged.entity]))
    return kept._replace(entity=number[kept.entity])


def _flagged_before(
    frauds: _Outcomes, n_days: int, flag_d: int, shape: tuple[int, int]
) -> csr_array:
    """Return 1 where a member had a fraud at an entity on one of the ``flag_d`` days before."""
    lags = np.arange(1, min(flag_d, n_days - 1) + 1)[:, None]
    member, entity, day = np.broadcast_arrays(frauds.member, frauds.entity, frauds.day + lags)
    inside = day < n_days
    place = (member[inside], entity[inside] * n_days + day[inside])
    flagged = csr_array((np.ones(int(inside.sum())), place), shape=shape)
    flagged.data[:] = 1.0  # where several of the days had one, too
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
    own = np.diagonal(rate)
    to_receiver = np.fmin(own, _medians_of_others(rate.T).T)
    by_receiver = np.fmin(own, _medians_of_others(rate).T)
    said = np.minimum(
        _ratios(flags.n, flags.f, to_receiver, policy),
        _ratios(flags.n.T, flags.f.T, by_receiver, policy),
    )
    np.fill_diagonal(said, np.nan)
    return said


def _medians_of_others(rates: Square) -> Square:
    """Return in row r, column s the median of row r without columns r and s, NaN of nothing."""
    known = rates.copy()
    np.fill_diagonal(known, np.nan)
    order = np.argsort(known, axis=1, kind="stable")  # those that are NaN last
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(len(rates))[None, :], axis=1)
    ordered = np.take_along_axis(known, order, axis=1)
    is_known = ~np.isnan(known)
    n_left = is_known.sum(axis=1, keepdims=True) - is_known
    middle = []
    for left in (np.maximum(n_left - 1, 0) // 2, n_left // 2):
        place = left + (is_known & (left >= rank))  # s itself is passed over
        middle.append(np.take_along_axis(ordered, np.minimum(place, len(rates) - 1), axis=1))
    return np.where(n_left > 0, (middle[0] + middle[1]) / 2.0, np.nan)


def _ratios(n: Square, f: Square, rate: Square, policy: TrustPolicy) -> Square:
    """Return found / expected frauds, 1 where nothing is expected to be known."""
    prior = policy.prior_frauds
    return np.where(np.isnan(rate), 1.0, (f + prior) / (n * rate + prior))


def evidence_trust(said: Square) -> NDArray[np.float64]:
    """Return one ratio per member: the most favourable one that half of the others stay below.

    More than half of the other members must find it low before it is low, each having one voice;
    so two of five can neither vouch for each other nor get a third expelled. Fewer than three
    members judge nobody.
    """
    size = len(said)
    if size < 3:
        return np.ones(size)
    votes = np.sort(said, axis=1)[:, :-1]  # its own, NaN, is the last
    return votes[:, (size - 1) // 2]


def evidence_weight(ratio: float, policy: TrustPolicy) -> float:
    """Return the factor on a member's counts: clip(ratio / full_ratio, 0, 1), 0 below a half.

    Rounded down to a multiple of 1 / 16, so that products with whole counts are exact.
    """
    weight = float(np.floor(min(ratio / policy.full_ratio, 1.0) * STEP) / STEP)
    return weight if weight >= 0.5 else 0.0
