"""Whether a worker has read what was there when its partitions were assigned."""

import asyncio
import time
from collections.abc import Callable, Mapping, Set

from stream.manifest import Partition

_LOOK_S = 1.0
_IDLE_S = 30.0  # without a chunk, what is there has been read


def n_unread(ends: Mapping[Partition, int | None], offsets: Mapping[Partition, int]) -> int:
    """Return how many records lie between where reading goes on and the ends, as far as known.

    Examples
    --------
    >>> n_unread({("t", 0): 9, ("t", 1): None}, {("t", 0): 4})
    5
    """
    return sum(max((end or 0) - offsets.get(place, 0), 0) for place, end in ends.items())


class CatchUp:
    """What was there, and what of it is left.

    Parameters
    ----------
    place
        Gives the partitions that are read, and where reading goes on in each.
    """

    def __init__(self, place: Callable[[], tuple[Set[Partition], Mapping[Partition, int]]]) -> None:
        self._place = place
        self._found: Mapping[Partition, int] = {}
        self._seen_s = time.monotonic()

    def assigned(self, ends: Mapping[Partition, int]) -> None:
        """Take note of the ends that partitions have now, as far as the cluster says."""
        self._found = ends
        self.seen()

    def seen(self) -> None:
        """Take note that records came."""
        self._seen_s = time.monotonic()

    @property
    def _is_idle(self) -> bool:
        return time.monotonic() - self._seen_s > _IDLE_S

    def n_left(self) -> int:
        """Return how many records are left.

        0 after a while without any: the marks of transactional producers count and never come.
        """
        partitions, offsets = self._place()
        return 0 if self._is_idle else n_unread(_of(self._found, partitions), offsets)

    async def done(self) -> None:
        """Return once partitions are assigned and nothing is left of what they had."""
        while True:
            await asyncio.sleep(_LOOK_S)
            partitions, _ = self._place()
            is_known = self._found.keys() >= partitions
            if partitions and (self._is_idle or (is_known and not self.n_left())):
                return


def _of(ends: Mapping[Partition, int], partitions: Set[Partition]) -> dict[Partition, int]:
    return {place: end for place, end in ends.items() if place in partitions}
