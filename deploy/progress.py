"""From counts of what was done to the share of the work that is done."""

from collections.abc import Callable

OnShare = Callable[[float], None]
"""Called now and then with the share of the work done, in [0, 1]."""


def share_counter(total: int, on_share: OnShare) -> Callable[[int], None]:
    """Return what adds up counts and passes on which share of ``total`` they are."""
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        on_share(done / max(total, 1))

    return count
