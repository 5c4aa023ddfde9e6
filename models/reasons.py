"""Reason codes: the summands of a scorecard's log-odds, against the usual transaction, in words.

A row's contribution of a transform is its active weight less the mean of the transform's active
weights over a sample (the baseline): what this transaction owes to not being the usual one. Words
come from the row's own values; amounts are told relative to the account or to all payments only.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis, view
from models.errors import InvalidInputError
from models.records import Reason
from models.schema import ATTRIBUTE
from models.tree_checks import rule_of_leaf
from models.trees import leaves_of

SMALLEST = 0.05
"""Contributions nearer to 0 than this (log-odds) are no reason."""

_ATTRIBUTE = f"{ATTRIBUTE}."
Words = Callable[[float], str]


def contributions(weights: NDArray[np.float64], active: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the weight that each transform adds, 0 where missing; the shape of ``active``.

    Parameters
    ----------
    weights
        float64 of shape (n_weights,).
    active
        Result of `models.basis.encode`, shape (n, n_transforms).
    """
    return np.where(active >= 0, weights[np.maximum(active, 0)], 0.0)


def baseline(weights: NDArray[np.float64], active: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return each transform's mean contribution over a sample, float64 of shape (n_transforms,).

    Zeros for an empty sample.
    """
    if len(active) == 0:
        return np.zeros(active.shape[1])
    mean: NDArray[np.float64] = contributions(weights, active).mean(axis=0)
    return mean


def explain(
    names: Sequence[str],
    basis: Basis,
    features: NDArray[np.float32],
    excess: NDArray[np.float64],
    *,
    n_towards: int = 4,
    n_against: int = 2,
) -> list[list[Reason]]:
    """Return each row's reasons: those towards fraud, then those against, the strongest first.

    A cross or a rule (a tree's leaf) all of whose features were told already, in the same
    direction, is passed over for the next; so fewer reasons than asked for may come.

    Parameters
    ----------
    names
        The schema's feature names, in column order.
    basis
        Of the scorecard that is explained.
    features
        float32 of shape (n, n_features); NaN is absent.
    excess
        float64 of shape (n, n_transforms): `contributions` less `baseline`.
    n_towards, n_against
        Reasons of each direction at most, >= 0.
    """
    if len(names) != basis.n_features or features.shape != (len(excess), basis.n_features):
        raise InvalidInputError(
            f"expected {basis.n_features} features, got {len(names)} names and {features.shape}"
        )
    if excess.shape[1:] != (basis.n_transforms,):
        raise InvalidInputError(
            f"excess: expected {basis.n_transforms} columns, got {excess.shape}"
        )
    sides = _Sides(basis)
    out = []
    orders = np.argsort(-excess, axis=1, kind="stable").tolist()
    seen = view(basis, features)
    leaves = leaves_of(basis.trees, seen).tolist()
    rows = zip(seen.tolist(), leaves, excess.tolist(), orders, strict=True)
    for row, leaf, summands, order in rows:
        told = _Teller(names, basis, row, sides.of_row(leaf))
        out.append(told.reasons(summands, order, n_towards, n_against))
    return out


class _Sides:
    """The features that each transform looks at; of a tree, those on the way to a row's leaf."""

    def __init__(self, basis: Basis) -> None:
        crosses = [tuple(pair) for pair in basis.crosses.tolist()]
        self._plain: list[tuple[int, ...]] = [(), *((j,) for j in basis.selected.tolist())]
        self._plain += crosses
        self._trees = basis.trees
        self._of_leaf: dict[tuple[int, int], tuple[int, ...]] = {}

    def of_row(self, leaves: Sequence[int]) -> Callable[[int], tuple[int, ...]]:
        """Return what gives the features of a transform for a row in these leaves."""

        def of(transform: int) -> tuple[int, ...]:
            tree = transform - len(self._plain)
            return self._plain[transform] if tree < 0 else self._of_tree(tree, leaves[tree])

        return of

    def _of_tree(self, tree: int, leaf: int) -> tuple[int, ...]:
        if (tree, leaf) not in self._of_leaf:
            rule = rule_of_leaf(self._trees, tree, leaf)
            self._of_leaf[tree, leaf] = tuple(condition.feature for condition in rule)
        return self._of_leaf[tree, leaf]


class _Teller:
    """Words for the transforms of one row."""

    def __init__(
        self,
        names: Sequence[str],
        basis: Basis,
        row: Sequence[float],
        sides: Callable[[int], tuple[int, ...]],
    ) -> None:
        self._names, self._basis, self._row, self._sides = names, basis, row, sides

    def reasons(
        self, summands: Sequence[float], order: Sequence[int], n_towards: int, n_against: int
    ) -> list[Reason]:
        """Return the reasons; ``order`` has the transforms, the largest summand first."""
        first = takewhile(lambda t: summands[t] >= SMALLEST, order)
        last = takewhile(lambda t: summands[t] <= -SMALLEST, reversed(order))
        chosen = (*self.pick(first, n_towards), *self.pick(last, n_against))
        return [self.reason(t, summands[t]) for t in chosen]

    def pick(self, transforms: Iterable[int], n: int) -> list[int]:
        """Return the first ``n`` that say something new; the bias never does."""
        out: list[int] = []
        told: set[int] = set()
        for t in transforms:
            if len(out) == n:
                break
            if not told.issuperset(self._sides(t)):
                out.append(t)
                told.update(self._sides(t))
        return out

    def reason(self, transform: int, contribution: float) -> Reason:
        sides = self._sides(transform)
        return Reason(
            feature=" x ".join(self._names[j] for j in sides),
            contribution=round(contribution, 4),
            text=_joined([self._text(j) for j in sides]),
        )

    def _text(self, j: int) -> str:
        value = self._row[j]
        return describe(self._names[j], value, lambda: _level(self._basis, j, value))


def _joined(texts: Sequence[str]) -> str:
    """Return the parts of a reason as one: a cross names two, a rule of a tree several."""
    if len(texts) <= 2:
        return " together with ".join(texts)
    return "all at once: " + "; ".join(texts)


def _level(basis: Basis, j: int, value: float) -> float:
    """Return the share of transactions that surely lie below a value's bin; .5 for no bins."""
    edges, ranks = basis.fine_of(j)
    if len(edges) == 0 or math.isnan(value):
        return 0.5
    place = int(np.searchsorted(edges, np.float32(value), side="right"))
    return float(ranks[place - 1]) if place else 0.0


def describe(name: str, value: float, level: Callable[[], float] = lambda: 0.5) -> str:
    """Return a feature's value as a part of a sentence.

    Parameters
    ----------
    name
        A name of `models.schema.Schema.feature_names`; one that has no words of its own is told
        by name and level.
    value
        As in the feature row; NaN is absent.
    level
        Gives where it lies among all values, 0 to 1; asked where the value itself may not be told.

    Examples
    --------
    >>> describe("terminal.f_7d", math.log1p(12))
    '12 frauds known at this terminal in the last 7 days'
    >>> describe("ratio_30d", math.log(6))
    "amount 6 times this account's mean of 30 days"
    """
    if name.startswith(_ATTRIBUTE):  # a number or a category: high and low mean nothing for one
        attribute = f"attribute {name.removeprefix(_ATTRIBUTE)}"
        return f"{attribute} not given" if math.isnan(value) else f"value of {attribute}"
    kind, dot, feature = name.rpartition(".")
    if math.isnan(value):
        return f"no {kind} named" if dot else _ABSENT.get(name, f"{name} not known")
    if dot and feature in _ENTITY:
        return _ENTITY[feature](value).format(kind=kind)
    if not dot and name in _ACCOUNT:
        return _ACCOUNT[name](value)
    if not dot and name in _LEVELS:
        return f"{_degree(level())} {_LEVELS[name]}"
    return f"{_degree(level())} {name}"


def _degree(level: float) -> str:
    for bound, word in ((0.95, "exceptionally high"), (0.75, "high"), (0.25, "medium")):
        if level >= bound:
            return word
    return "low"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")


def _count(value: float, one: str, many: str) -> str:
    """Undo log1p and count in words; windows cut buckets, so counts are rounded."""
    n = round(math.expm1(value))
    if n <= 0:
        return f"no {one}"
    return f"1 {one}" if n == 1 else f"{n} {many}"


def _ago(days: float) -> str:
    if days >= 1.0:
        n, unit = round(days), "day"
    elif days >= 1 / 24:
        n, unit = round(days * 24), "hour"
    else:
        n, unit = max(round(days * 24 * 60), 1), "minute"
    return f"{n} {unit}{'' if n == 1 else 's'} ago"


def _payments(period: str) -> Words:
    def words(value: float) -> str:
        n = max(round(math.expm1(value)), 1)
        if n == 1:
            return f"first payment of this account in {period}"
        return f"{n} payments of this account in {period}"

    return words


def _times(what: str, usual: str) -> Words:
    """Return words for the logarithm of a ratio."""

    def words(value: float) -> str:
        ratio = math.exp(value)
        if 0.8 <= ratio <= 1.25:
            return f"{what} near {usual}"
        if ratio < 1.0:
            return f"{what} {100 * ratio:.0f} % of {usual}"
        return f"{what} {_number(ratio)} times {usual}"

    return words


def _spread(value: float) -> str:
    side = "above" if value >= 0 else "below"
    return f"amount {_number(abs(value))} standard deviations {side} this account's mean"


def _frauds(where: str, period: str) -> Words:
    def words(value: float) -> str:
        return f"{_count(value, 'fraud', 'frauds')} known {where} in {period}"

    return words


def _outcomes(period: str) -> Words:
    def words(value: float) -> str:
        known = _count(value, "outcome", "outcomes")
        return f"{known} known at this {{kind}} in {period}"

    return words


def _spikes(period: str) -> Words:
    def words(value: float) -> str:
        n = _count(value, "unusually high payment", "unusually high payments")
        return f"{n} of this account in about the last {period}"

    return words


def _since(what: str, cap_d: float, *, logarithm: bool = False) -> Words:
    """Return words for an age in days (or its logarithm); at the cap it was not seen."""

    def words(value: float) -> str:
        days = math.exp(value) if logarithm else value
        if days >= cap_d - 0.01:
            return f"no {what} within {cap_d:.0f} days"
        return f"last {what} {_ago(days)}"

    return words


def _first_fraud(value: float) -> str:
    if value >= 39.99:
        return "no run of frauds on this account within 40 days"
    return f"first fraud label of this account's run {_ago(value)}"


def _gap(value: float) -> str:
    if value >= 9.99:
        return "no payment of this account for 10 days or more"
    if value <= 0.0:
        return "no payment of this account before, or one at the same instant"
    return f"previous payment of this account {_ago(value)}"


def _risk(period: str) -> Words:
    def words(value: float) -> str:
        return f"fraud share of {100 * value:.0f} % at this {{kind}} in {period}, smoothed"

    return words


def _episode(value: float) -> str:
    if value >= 1.9999:
        return "no run of frauds at this {kind} within 60 days"
    return f"first fraud label of the run at this {{kind}} {_ago(30 * value)}"


def _either(yes: str, no: str) -> Words:
    return lambda value: yes if value >= 0.5 else no


_DAY, _WEEK, _MONTH = "the last 24 hours", "the last 7 days", "the last 30 days"
_HERE = "at this {kind}"

_ACCOUNT: Mapping[str, Words] = {
    "weekend": _either("paid on a weekend", "paid on a weekday"),
    "night": _either("paid at night, before 07:00 UTC", "paid in the daytime, UTC"),
    "n_1d": _payments(_DAY),
    "n_7d": _payments(_WEEK),
    "n_30d": _payments(_MONTH),
    "ratio_30d": _times("amount", "this account's mean of 30 days"),
    "z_30d": _spread,
    "mean_1d_30d": _times("mean payment of 24 hours", "that of 30 days"),
    "mean_7d_30d": _times("mean payment of 7 days", "that of 30 days"),
    "frauds_7d": _frauds("on this account", _WEEK),
    "frauds_30d": _frauds("on this account", _MONTH),
    "robust_ratio": _times("amount", "what this account usually pays"),
    "spikes_3d": _spikes("3 days"),
    "spikes_10d": _spikes("10 days"),
    "spike_age": _since("unusually high payment of this account", 30.0),
    "fraud_age": _since("fraud on this account", 40.0),
    "first_fraud_age": _first_fraud,
    "gap_d": _gap,
}
_LEVELS: Mapping[str, str] = {
    "log_amount": "amount among all payments",
    "log_mean_30d": "usual amount of this account among all accounts",
}
_NOTHING_BEFORE = "no earlier payment of this account to compare with"
_ABSENT: Mapping[str, str] = {
    "ratio_30d": _NOTHING_BEFORE,
    "z_30d": "too few earlier payments of this account to compare with",
    "log_mean_30d": _NOTHING_BEFORE,
    "mean_1d_30d": _NOTHING_BEFORE,
    "mean_7d_30d": _NOTHING_BEFORE,
    "robust_ratio": _NOTHING_BEFORE,
}
_ENTITY: Mapping[str, Words] = {
    "n_7d": _outcomes(_WEEK),
    "n_30d": _outcomes(_MONTH),
    "f_1d": _frauds(_HERE, _DAY),
    "f_7d": _frauds(_HERE, _WEEK),
    "f_30d": _frauds(_HERE, _MONTH),
    "risk_1d": _risk(_DAY),
    "risk_7d": _risk(_WEEK),
    "risk_30d": _risk(_MONTH),
    "fraud_age": _since("fraud known at this {kind}", 60.0, logarithm=True),
    "legit_age": _since("legitimate payment known at this {kind}", 60.0, logarithm=True),
    "last_label_is_fraud": _either(
        "newest known outcome at this {kind} was fraud",
        "newest known outcome at this {kind} was not fraud",
    ),
    "episode_age": _episode,
}
