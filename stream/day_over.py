"""A day that has ended, of which what is slow is still to be done."""

from typing import NamedTuple


class DayOver(NamedTuple):
    """What `stream.day_work` needs to know.

    Parameters
    ----------
    day
        The one that begins, days since 1970.
    forgetting
        Days that the own scorecard forgets, >= 1.
    window
        Part of the blend's usual window that is looked at.
    """

    day: int
    forgetting: float = 1.0
    window: float = 1.0
