"""Which of a bank's partitions a worker reads: its share, the same whatever machine it runs on.

A state is of accounts, and accounts are of partitions. So partitions are dealt to workers by
number, for good, and it is workers, with their states, that move between machines.
"""

from dataclasses import dataclass

from models.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's partitions, of transactions and of labels.

    Parameters
    ----------
    index
        Number of the worker, in [0, workers).
    workers
        How many the bank has.

    Examples
    --------
    >>> [partition for partition in range(6) if Share(1, 4).holds(partition)]
    [1, 5]
    """

    index: int = 0
    workers: int = 1

    def holds(self, partition: int) -> bool:
        """Return whether a partition is this worker's."""
        return partition % self.workers == self.index


def worker_names(workers: int, only: str) -> tuple[str, ...]:
    """Return the names of a bank's workers: the numbers from 0 on; one alone has any name."""
    return (only,) if workers == 1 else tuple(str(index) for index in range(workers))


def check_partitions(share: Share, topic: str, n_partitions: int) -> None:
    """Refuse a topic with too few partitions for every worker to have one.

    Raises
    ------
    SettingsError
        If so.
    """
    if n_partitions < share.workers:
        raise SettingsError(
            f"workers: expected at most {n_partitions}, the partitions of {topic}, "
            f"got {share.workers}"
        )
