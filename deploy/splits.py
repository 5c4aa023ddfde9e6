"""How the accounts of one file are split into banks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError

_MAX_DIGITS = 7
HANDBOOK = "7:0.40,0.25,0.15,0.12,0.08"


@dataclass(frozen=True, slots=True)
class Split:
    """Seeded shares: which bank each account belongs to.

    Parameters
    ----------
    seed
        Of `numpy.random.default_rng`.
    shares
        Share of the accounts of each bank; they sum to 1.
    """

    seed: int
    shares: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The banks' names in order."""
        return tuple(f"bank-{i + 1}" for i in range(len(self.shares)))

    def banks(self, account_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the bank of each row.

        Accounts whose ids are all whole numbers of up to seven digits are drawn in the order of
        the numbers, 0 to the highest, others in the order of their texts.
        """
        distinct = sorted(set(account_ids))
        longest = max(map(len, distinct), default=0)
        if longest <= _MAX_DIGITS and all(text.isdecimal() for text in distinct):
            place = {text: int(text) for text in distinct}
        else:
            place = {text: i for i, text in enumerate(distinct)}
        size = max(place.values(), default=-1) + 1
        of_account = np.random.default_rng(self.seed).choice(
            len(self.shares), size=size, p=self.shares
        )
        rows = np.fromiter((place[text] for text in account_ids), np.int64, len(account_ids))
        return of_account[rows].astype(np.int64)


def parse_split(text: str) -> Split:
    """Read ``SEED:SHARE,SHARE,...``; the word ``handbook`` stands for the Handbook's five banks.

    Raises
    ------
    InvalidInputError
        If it reads otherwise or the shares do not sum to 1.
    """
    seed, _, shares = (HANDBOOK if text == "handbook" else text).partition(":")
    try:
        split = Split(int(seed), tuple(float(share) for share in shares.split(",")))
    except ValueError as error:
        raise InvalidInputError(f"split: expected SEED:SHARE,SHARE,..., got {text!r}") from error
    if split.seed < 0:
        raise InvalidInputError(f"split: expected a seed of 0 or more, got {text!r}")
    if not (all(share > 0 for share in split.shares) and abs(sum(split.shares) - 1) < 1e-9):
        raise InvalidInputError(f"split: expected positive shares that sum to 1, got {text!r}")
    return split
