"""Texts to rows of a table, as far as they were lately asked for."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_YOUNG = 200_000
_Text = str | None


class RecentRows:
    """A cache of two generations: bounded, and what is asked for again and again stays.

    Parameters
    ----------
    add
        Returns the rows, int64 of shape (n,), of n different texts that the cache lacks.
    pinned
        What is always known.
    max_young
        A young generation of so many texts becomes the old one, and the old one is forgotten.
    """

    def __init__(
        self,
        add: Callable[[list[str]], NDArray[np.int64]],
        pinned: dict[_Text, int] | None = None,
        *,
        max_young: int = MAX_YOUNG,
    ) -> None:
        self._add = add
        self._pinned = pinned or {}
        self._max_young = max_young
        self.forget()

    def forget(self) -> None:
        """Know nothing but what is pinned: rows are others now."""
        self._young: dict[_Text, int] = dict(self._pinned)
        self._old: dict[_Text, int] = {}

    def rows(self, texts: Sequence[_Text]) -> NDArray[np.int64]:
        """Return the texts' rows; what the cache lacks is added, in order."""
        try:
            return self._of_young(texts)
        except KeyError:
            self._bring_in(texts)
        found = self._of_young(texts)
        if len(self._young) > self._max_young:
            self._old, self._young = self._young, dict(self._pinned)
        return found

    def _of_young(self, texts: Sequence[_Text]) -> NDArray[np.int64]:
        return np.fromiter(map(self._young.__getitem__, texts), np.int64, len(texts))

    def _bring_in(self, texts: Sequence[_Text]) -> None:
        young, old = self._young, self._old
        lacking = [text for text in dict.fromkeys(texts) if text not in young]
        new = [text for text in lacking if text not in old and text is not None]
        young.update((text, old[text]) for text in lacking if text in old)
        if new:
            young.update(zip(new, self._add(new).tolist(), strict=True))
