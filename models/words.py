"""A column of texts that repeat: each distinct text once, and a small number per row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

ABSENT = -1
"""Code of a row without a text."""


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Texts or nothing, one per row, at four bytes a row.

    Parameters
    ----------
    codes
        ndarray of shape (n,), int32: index into ``words``, `ABSENT` where the row has none.
    words
        The texts; not all need to occur in a row, as a part of a column keeps them all.
    """

    codes: NDArray[np.int32]
    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> "Words":
        """Return a column of texts, with the words in the order of their first row."""
        place: dict[str, int] = {}
        codes = [ABSENT if text is None else place.setdefault(text, len(place)) for text in texts]
        return cls(np.array(codes, np.int32), tuple(place))

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[str | None]:
        return iter(self.tolist())

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice | NDArray[np.int64]) -> "Words": ...
    def __getitem__(self, index: int | slice | NDArray[np.int64]) -> "str | Words | None":
        if isinstance(index, slice | np.ndarray):
            return Words(self.codes[index], self.words)
        code = int(self.codes[index])
        return None if code == ABSENT else self.words[code]

    def tolist(self) -> list[str | None]:
        """Return one text or None per row."""
        words = [*self.words, None]
        return [words[code] for code in self.codes.tolist()]


def concatenate_words(parts: Sequence[Words]) -> Words:
    """Return the rows of several columns, one after the other; a word of several comes once."""
    if len({id(part.words) for part in parts}) == 1:
        return Words(np.concatenate([part.codes for part in parts]), parts[0].words)
    place: dict[str, int] = {}
    codes = []
    for part in parts:
        new = [place.setdefault(word, len(place)) for word in part.words]
        codes.append(np.array([*new, ABSENT], np.int32)[part.codes])
    return Words(np.concatenate(codes) if codes else np.empty(0, np.int32), tuple(place))
