"""A bank's partitions are dealt to its workers by number, all of them, each to one."""

import pytest

from models.errors import SettingsError
from stream.share import Share, check_partitions, worker_names


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_every_partition_is_of_exactly_one_worker(workers: int) -> None:
    """That of its number's remainder."""
    for partition in range(20):
        holders = [i for i in range(workers) if Share(i, workers).holds(partition)]
        assert holders == [partition % workers]


def test_several_workers_are_numbered_and_one_has_any_name() -> None:
    """So that a number is a partition of the bank's topic of workers."""
    assert worker_names(1, "east") == ("east",)
    assert worker_names(3, "1") == ("0", "1", "2")


def test_more_workers_than_partitions_are_refused() -> None:
    """One of them would have nothing to read; as many are enough."""
    check_partitions(Share(3, 4), "bank.labels", 4)
    with pytest.raises(SettingsError, match=r"at most 3, the partitions of bank\.labels, got 4"):
        check_partitions(Share(0, 4), "bank.labels", 3)
