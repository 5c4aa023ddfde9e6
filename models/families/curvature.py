"""Sums of h x x^T over rows of active weights, of which only what is unusual is added up.

In most transforms most rows are in one bin, or in none. That state of each transform is its
reference, found from the first rows, and what a row adds is that of its other states: a half of
the transforms, and so a quarter of the pairs. Elements of a reference follow from the others, since
the states of a transform add up: with S the sum of h, m[s] = P[s, s] that of the rows in state s,
and s over the other states of transform j, t over those of k::

    A[r, r] = S - sum_s m[s]                A[r, t] = m[t] - sum_s P[s, t]
    A[r, q] = S - sum_s m[s] - sum_t m[t] + sum_st P[s, t]

Where a bin is the reference, the state of no bin stands in its place in P.
"""

from collections.abc import Callable, Mapping

import numba as nb
import numpy as np
from numpy.typing import NDArray

MAX_HELD = 16_384
FIRST_N = 512
"""Rows from which references are found."""
_SHARES = 8
_NONE = -1
_NOTHING = 1e-9  # of its row's sum: a rest that only rounding can have left

Rows = tuple[NDArray[np.int16], NDArray[np.float64]]


@nb.njit(cache=True)
def _add_pairs(active, h, references, transforms, pairs, total):  # type: ignore[no-untyped-def]  # compiled
    """Add rows to P and S, in order, and take note of which transforms states are of."""
    states = np.empty(active.shape[1], np.uint16)
    for i in range(len(active)):
        n = 0
        for k in range(active.shape[1]):
            state, reference = active[i, k], references[k]
            if state == reference:
                continue
            states[n] = reference if state < 0 else state
            transforms[states[n]] = k
            n += 1
        total[0] += h[i]
        for k in range(n):
            sums = pairs[states[k]]
            for other in range(k, n):
                sums[states[other]] += h[i]


@nb.njit(cache=True)
def _rest(whole, part):  # type: ignore[no-untyped-def]  # compiled
    rest = whole - part
    return 0.0 if abs(rest) <= _NOTHING * whole else rest


@nb.njit(cache=True)
def _margins(pairs, transforms, n_transforms):  # type: ignore[no-untyped-def]  # compiled
    """Return sum_s m[s], sum_t P[s, t] and sum_s P[s, t], and sum_st P[s, t], by transforms."""
    n = len(pairs)
    others = np.zeros(n_transforms)
    of_row, of_column = np.zeros((n, n_transforms)), np.zeros((n_transforms, n))
    of_both = np.zeros((n_transforms, n_transforms))
    for s in range(n):
        j = transforms[s]
        if j < 0:
            continue
        others[j] += pairs[s, s]
        row, sums, of_transform = pairs[s], of_row[s], of_column[j]
        for t in range(s + 1, n):
            sums[transforms[t]] += row[t]  # also those that are of none, which are 0
            of_transform[t] += row[t]
        of_both[j] += sums
    return others, of_row, of_column, of_both


@nb.njit(cache=True)
def _square(pairs, total, references, transforms):  # type: ignore[no-untyped-def]  # compiled
    """Return A, its upper triangle; see the module's text."""
    others, of_row, of_column, of_both = _margins(pairs, transforms, len(references))
    square = pairs.copy()
    for j, r in enumerate(references):
        if r < 0:
            continue
        square[r], square[:r, r] = 0.0, 0.0  # there the state of no bin was
        for s, transform in enumerate(transforms):
            is_bin = transform >= 0 and s != references[transform]
            if is_bin and s > r and transform != j:
                square[r, s] = _rest(pairs[s, s], of_column[j, s])
            elif is_bin and s < r and transform != j:
                square[s, r] = _rest(pairs[s, s], of_row[s, j])
    for j, r in enumerate(references):
        if r >= 0:
            square[r, r] = _rest(total, others[j])
            for k in range(j + 1, len(references)):
                if references[k] >= 0:
                    both = _rest(square[r, r], others[k] - of_both[j, k])
                    square[r, references[k]] = both
    return square


class CurvatureSum:
    """A growing sum of h x x^T.

    Rows are held back and brought in together, so that P is mostly the same from one checkpoint to
    the next. Once they are many they are brought in a share with each call, so that none takes
    long. No bit tells when that was. What is added is divided by a scale, by which the sum is
    multiplied when it is asked for, so that all of it fades by one multiplication.

    Parameters
    ----------
    n_weights
        Of a basis.
    max_held
        So many rows are held back, >= 1, of a few hundred bytes each.
    on_change
        Called when P is about to change.

    Attributes
    ----------
    pairs
        P over the scale, float64 of shape (n_weights, n_weights); only the upper triangle is used.
    """

    def __init__(
        self,
        n_weights: int,
        *,
        max_held: int = MAX_HELD,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.pairs: NDArray[np.float64] = np.zeros((n_weights, n_weights))
        self._total = np.zeros(1)
        self._scale = 1.0
        self._references: NDArray[np.int16] | None = None
        self._transforms = np.full(n_weights, _NONE, np.int16)
        self._max_held, self._on_change = max_held, on_change
        self._held: list[Rows] = []
        self._n_held = 0
        self._is_full = False

    def add(self, active: NDArray[np.int32], h: NDArray[np.float64]) -> None:
        """Add rows, in order; O(n_transforms ** 2) for each.

        Parameters
        ----------
        active
            Result of `models.basis.encode`, shape (n, n_transforms).
        h
            float64 of shape (n,).
        """
        if not len(h):
            return
        self._held.append((active.astype(np.int16), h / self._scale))
        self._n_held += len(h)
        if self._references is None and self._n_held >= FIRST_N:
            self._references = _most_frequent(self._all_held()[0][:FIRST_N])
        self._is_full |= self._n_held >= self._max_held and self._references is not None
        if self._is_full:
            self._bring_in(max(self._max_held // _SHARES, self._n_held - self._max_held))
            self._is_full = self._n_held > 0

    def square(self) -> NDArray[np.float64]:
        """Return the sum, the upper triangle of shape (n_weights, n_weights)."""
        square: NDArray[np.float64]
        if self._references is None:
            square = self._plainly()
        else:
            self._bring_in()
            square = _square(self.pairs, self._total[0], self._references, self._transforms)
        square *= self._scale
        return square

    def decay(self, factor: float) -> None:
        """Multiply the sum."""
        self._scale *= factor

    def _plainly(self) -> NDArray[np.float64]:
        """Return the sum of so few rows that there are no references yet, over the scale."""
        square = np.zeros_like(self.pairs)
        if self._n_held:
            active, h = self._all_held()
            nowhere = np.full(active.shape[1], _NONE, np.int16)
            _add_pairs(active, h, nowhere, self._transforms.copy(), square, np.zeros(1))
        return square

    def _bring_in(self, n: int | None = None) -> None:
        """Add the first ``n`` rows that are held back to P, or all."""
        if not self._n_held:
            return
        self._on_change()
        active, h = self._all_held()
        n = len(h) if n is None else min(n, len(h))
        held = self._references, self._transforms, self.pairs, self._total
        _add_pairs(active[:n], h[:n], *held)
        self._held = [(active[n:], h[n:])] if n < len(h) else []
        self._n_held = len(h) - n

    def _all_held(self) -> Rows:
        if len(self._held) > 1:
            active, h = zip(*self._held, strict=True)
            self._held = [(np.concatenate(active), np.concatenate(h))]
        return self._held[0]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views); rows that are held back stand beside P.

        So P, by far the largest, is mostly the same from one checkpoint to the next.
        """
        nothing = np.empty((0, 0), np.int16), np.empty(0)
        active, h = self._all_held() if self._held else nothing
        references = self._references
        return {
            "pairs": self.pairs,
            "total": self._total,
            "scale": np.array([self._scale]),
            "references": np.empty(0, np.int16) if references is None else references,
            "transforms": self._transforms,
            "held_active": active,
            "held_h": h,
        }

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by a copy of what `arrays` gave."""
        self.pairs = np.array(arrays["pairs"], np.float64)
        self._total = np.array(arrays["total"], np.float64)
        self._scale = float(arrays["scale"][0])
        references = np.array(arrays["references"], np.int16)
        self._references = references if len(references) else None
        self._transforms = np.array(arrays["transforms"], np.int16)
        h = np.array(arrays["held_h"], np.float64)
        self._held = [(np.array(arrays["held_active"], np.int16), h)] if len(h) else []
        self._n_held = len(h)


def _most_frequent(active: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the state of each transform in which most rows are, the least of several."""
    found = np.empty(active.shape[1], np.int16)
    for k, column in enumerate(active.T):
        states, counts = np.unique(column, return_counts=True)
        found[k] = states[counts.argmax()]
    return found
