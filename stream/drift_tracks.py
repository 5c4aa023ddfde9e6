"""Series that detectors watch, kept so that the detectors can be made again from them."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import StateError


class Detector(Protocol):
    """Watches one series."""

    def update(self, value: float) -> bool:
        """Take the next point; return whether the series has changed."""
        ...


class Tracks:
    """Equal detectors on several series.

    A detector is a function of the points that it was given, so its state is those points: at most
    2 x ``memory`` of a series, after which the detectors of that series are made anew from the
    newer half. Restoring tells them the same points again, and they go on as if undisturbed. They
    are made when their series gets a point.

    Parameters
    ----------
    n
        Series.
    detectors
        Names.
    make
        Name -> new detector.
    memory
        Points, > 0.

    Attributes
    ----------
    values
        float64 of shape (n, 2 * memory).
    length
        int64 of shape (n,): points held of each series.
    """

    def __init__(
        self, n: int, detectors: tuple[str, ...], make: Callable[[str], Detector], memory: int
    ) -> None:
        self._names = detectors
        self._make = make
        self._memory = memory
        self.values = np.zeros((n, 2 * memory))
        self.length = np.zeros(n, np.int64)
        self._detectors: dict[int, list[Detector]] = {}

    def _new(self) -> list[Detector]:
        return [self._make(name) for name in self._names]

    def push(self, series: int, value: float) -> list[str]:
        """Give a series its next point; return the detectors that found a change."""
        length = int(self.length[series])
        if length == self.values.shape[1]:
            length = self._memory
            self.values[series, :length] = self.values[series, length:]
            self._retold(series, length)
        self.values[series, length] = value
        self.length[series] = length + 1
        if series not in self._detectors:
            self._detectors[series] = self._new()
        found = [one.update(value) for one in self._detectors[series]]
        return [name for name, is_found in zip(self._names, found, strict=True) if is_found]

    def _retold(self, series: int, length: int) -> None:
        self._detectors[series] = self._new()
        for value in self.values[series, :length].tolist():
            for one in self._detectors[series]:
                one.update(value)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        return {"values": self.values, "length": self.length}

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave.

        Raises
        ------
        StateError
            If the shapes are not those of these series.
        """
        if arrays["values"].shape != self.values.shape:
            raise StateError(
                f"drift: expected series of shape {self.values.shape}, got {arrays['values'].shape}"
            )
        self.values = np.array(arrays["values"], np.float64)
        self.length = np.array(arrays["length"], np.int64)
        self._detectors.clear()
        for series in np.flatnonzero(self.length).tolist():
            self._retold(series, int(self.length[series]))
