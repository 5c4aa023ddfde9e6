"""What makes a payment of the foreign data set a fraud: a leaning, and several ways of fraud.

The leaning is a little of every telling attribute, and not quite the same at every bank. A way of
fraud looks at a few attributes: bumps and waves of single ones, products and exclusive ors of
pairs, conjunctions of three, small trees. A payment is as suspicious as its leaning and the ways
together (a soft maximum) make it, so that no sum over single attributes or pairs describes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_N_WAYS = 4
_N_LOOKED_AT = 10
_DEPTH = 3
_CONTRAST = 4.0
_LEANING = 5.0
_OF_BANK = 0.5
_MIX = 0.5
_DRIFT = 0.8
_WEIGHTS = {"smooth": 0.75, "product": 0.5, "xor": 0.5, "all_three": 1.6, "tree": 0.9}

Column = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Situation:
    """Where and when the payments are made.

    Parameters
    ----------
    bank
        int64 of shape (n,).
    n_banks
        How many there are.
    progress
        float32 of shape (n,): 0 at the first payment, 1 at the last.
    """

    bank: NDArray[np.int64]
    n_banks: int
    progress: Column


def suspicion(
    seen: Sequence[Column], situation: Situation, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return how suspicious each payment is, in log-odds up to a constant.

    Parameters
    ----------
    seen
        The telling attributes as they are seen, float32 of shape (n,) each, of mean near 0 and
        deviation near 1, 0 where absent; at least three.
    situation
        The ways' shares differ between banks and move with time.
    rng
        Draws the ways.
    """
    leaning = _leaning(seen, situation, rng)
    total = np.full(len(situation.bank), -np.inf)
    for _ in range(_N_WAYS):
        score = _way(seen, rng)
        level = rng.normal(0.0, _MIX, situation.n_banks)[situation.bank]
        slope = rng.normal(0.0, _DRIFT)
        part = _CONTRAST * score + level + slope * (situation.progress - 0.5)
        total = np.logaddexp(total, part)
    score_of_all: NDArray[np.float64] = _LEANING * leaning + total
    return score_of_all


def _leaning(
    seen: Sequence[Column], situation: Situation, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return what all ways have in common: a little of every attribute, of deviation 1.

    Banks differ in how much of which.
    """
    score = np.zeros(len(seen[0]))
    for column in seen:
        of_bank = rng.normal() + rng.normal(0.0, _OF_BANK, situation.n_banks)
        score += of_bank[situation.bank] * np.tanh(column.astype(np.float64))
    return _standardised(score)


def _way(seen: Sequence[Column], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return one way's score, of mean 0 and deviation 1."""
    n_looked_at = min(_N_LOOKED_AT, len(seen))
    own = [seen[i] for i in rng.permutation(len(seen))[:n_looked_at].tolist()]

    def some(n: int) -> list[Column]:
        return [own[i] for i in rng.choice(len(own), n, replace=False).tolist()]

    score = np.zeros(len(own[0]))
    for column in own:
        score += _weight("smooth", rng) * _smooth(column, rng)
    for _ in range(3):
        a, b = some(2)
        score += _weight("product", rng) * np.clip(a * b, -4, 4)
        a, b = some(2)
        score += _weight("xor", rng) * ((a > _cut(rng)) ^ (b > _cut(rng)))
    for _ in range(2):
        a, b, c = some(3)
        together = (a > _cut(rng)) & (b < _cut(rng)) & (c > _cut(rng))
        score += abs(_weight("all_three", rng)) * together
        score += _weight("tree", rng) * _tree(own, rng)
    return _standardised(score)


def _standardised(score: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = float(score.std()) or 1.0
    standardised: NDArray[np.float64] = (score - score.mean()) / deviation
    return standardised


def _smooth(column: Column, rng: np.random.Generator) -> NDArray[np.float64]:
    shape, centre = rng.integers(3), rng.normal(0.0, 0.8)
    away = column.astype(np.float64) - centre
    smooth: NDArray[np.float64] = (
        np.tanh(1.5 * away),
        np.exp(-(away**2)),
        np.cos(2.0 * away),
    )[shape]
    return smooth


def _tree(own: Sequence[Column], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the leaves of a tree of depth three, every node with a split of its own."""
    node = np.zeros(len(own[0]), np.int64)
    for depth in range(_DEPTH):
        looks_at = rng.integers(len(own), size=2**depth)
        cut = np.array([_cut(rng) for _ in range(2**depth)], np.float32)
        goes_right = np.zeros(len(node), np.bool_)
        for k in range(2**depth):
            here = node == k
            goes_right[here] = own[looks_at[k]][here] > cut[k]
        node = 2 * node + goes_right
    leaves: NDArray[np.float64] = rng.normal(0.0, 1.0, 2**_DEPTH)
    return leaves[node]


def _weight(name: str, rng: np.random.Generator) -> float:
    sign = 1.0 if rng.random() < 0.5 else -1.0
    return float(sign * _WEIGHTS[name] * rng.uniform(0.6, 1.4))


def _cut(rng: np.random.Generator) -> float:
    return float(rng.normal(0.0, 0.7))
