"""Where the rows of a log lie: at places that are used again, and never anywhere else.

Rows come at the end and go at the front. A row stays at its place, so that what was stored of it
stays stored; a new one gets a place that was let go of, or one behind all others. Where that is
follows from the rows alone, however many came at a time.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FIRST_PLACES = 4_096


class Stretches:
    """Places of rows, as few stretches in the order of the rows.

    Attributes
    ----------
    size
        Rows held.
    n_places
        That may be used so far; they become an eighth more when none is free.
    n_used
        Places that were ever used.
    """

    def __init__(self) -> None:
        self.size = 0
        self.n_places = FIRST_PLACES
        self.n_used = 0
        self._stretches: list[list[int]] = [[0, 0]]

    def append(self, n: int) -> list[slice]:
        """Give places to new rows; return them in order."""
        given = []
        while n:
            last = self._stretches[-1]
            room = self._end_of_gap(last[1]) - last[1]
            if not room:
                self._go_on()
                continue
            first = last[1]
            last[1] += min(n, room)
            given.append(slice(first, last[1]))
            n -= last[1] - first
            self.size += last[1] - first
            self.n_used = max(self.n_used, last[1])
        return given

    def _end_of_gap(self, place: int) -> int:
        """Return the first place from ``place`` on that is held, or the end of all."""
        starts = [start for start, stop in self._stretches if start >= place and stop > start]
        return min(starts, default=self.n_places)

    def _go_on(self) -> None:
        """Begin a stretch in the first gap, or have more places where there is none."""
        first = 0
        for start, stop in sorted(self._stretches):
            if start > first:
                break
            first = max(first, stop)
        if first == self.n_places:
            self.n_places += self.n_places // 8 + FIRST_PLACES
        if first != self._stretches[-1][1]:
            self._stretches.append([first, first])

    def drop(self, n: int) -> None:
        """Let go of the first rows, of those that are held."""
        self.size -= n
        while n:
            first = self._stretches[0]
            gone = min(n, first[1] - first[0])
            first[0] += gone
            n -= gone
            if first[0] == first[1] and len(self._stretches) > 1:
                del self._stretches[0]

    def spans(self, first: int, last: int) -> Iterator[tuple[slice, slice]]:
        """Yield where the rows from ``first`` up to, not including, ``last`` lie: rows, places."""
        begin = 0
        for start, stop in self._stretches:
            low, high = max(first, begin), min(last, begin + stop - start)
            if low < high:
                yield slice(low, high), slice(low - begin + start, high - begin + start)
            begin += stop - start

    def places(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where some rows lie, given by their positions."""
        if len(self._stretches) == 1:
            return index + self._stretches[0][0]
        starts, stops = np.array(self._stretches, np.int64).T
        ends = np.cumsum(stops - starts)
        shift: NDArray[np.int64] = stops - ends
        return index + shift[np.searchsorted(ends, index, side="right")]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays."""
        return {
            "stretches": np.array(self._stretches, np.int64),
            "places": np.array([self.n_places, self.n_used], np.int64),
        }

    def load(self, stretches: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Replace the state by what `arrays` gave.

        Raises
        ------
        ValueError
            If rows lie beyond the places, or two at one.
        """
        n_places, n_used = places.tolist()
        self._stretches = stretches.reshape(-1, 2).tolist()
        bounds = [0, *(bound for each in sorted(self._stretches) for bound in each), n_used]
        if not self._stretches or bounds != sorted(bounds) or n_used > n_places:
            raise ValueError(f"expected rows at {n_used} of {n_places} places, each at its own")
        self.n_places, self.n_used = n_places, n_used
        self.size = sum(stop - start for start, stop in self._stretches)
