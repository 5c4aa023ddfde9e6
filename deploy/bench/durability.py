"""What durability costs: processor time of checkpoints and of the changelog, for each payment.

The worker counts it itself, by the clocks of its threads, because it is less than what the whole
process differs by from run to run. It reads a backlog with everything as by default but for the
changelog, which is on. What counts is whole checkpoints: their processor time over the payments
that came between the beginning of the first and that of the last. Beside it stands the processor
time of the whole process, with them and in a run that never stores anything.

Not counted is what a worker copies because it is about to write to a page whose copy is still owed:
as much of the copying, a tenth of it all, as it does not do in the order of pages.
"""

import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kafka.admin import KafkaAdminClient

from deploy.bench.bank import BANK, PARTITIONS, SELDOM, DecisionLog, cpu_s, wait_until
from deploy.bench.rig import BEGUN, DURABLE, WRITTEN, Rig, check
from deploy.bench.stopwatch import WARM_SHARE
from deploy.topics import bank_plan, create_topics
from models.errors import UnavailableError

_TIMEOUT_S = 600.0
_SAMPLE_S = 1.0
_CARELESS = {"AMALGAM_STREAM_CHANGELOG": "false", "AMALGAM_STREAM_CHECKPOINT_S": "1000000"}


class Sample(NamedTuple):
    """How far a worker is.

    Parameters
    ----------
    decisions
        It has made.
    cpu_s
        It has used.
    begun, written
        Checkpoints.
    spent_s
        Processor seconds of those.
    sent_bytes
        To the changelog.
    """

    decisions: int = 0
    cpu_s: float = 0.0
    begun: float = 0.0
    written: float = 0.0
    spent_s: float = 0.0
    sent_bytes: float = 0.0


def measure_durability(rig: Rig, state_dir: Path, rows: slice, name: str) -> dict[str, float]:
    """Return what checkpoints and changelog cost of each payment of a backlog.

    Both runs start from a copy of one state; the changelog begins anew.
    """
    rig.bank.send(rows)
    n = rows.stop - rows.start
    durable = _watched(rig, state_dir, DURABLE | SELDOM, n, least=2)
    careless = _watched(rig, state_dir, _CARELESS | SELDOM, n, least=0)
    figures = {
        f"{name}{end}": value
        for end, value in {
            **costs(durable),
            "_with_us_per_tx": _cpu_us(durable),
            "_without_us_per_tx": _cpu_us(careless),
        }.items()
    }
    for figure, value in figures.items():
        sys.stdout.write(f"{figure}: {value:,.2f}\n")
    sys.stdout.flush()
    return figures


def costs(samples: Sequence[Sample]) -> dict[str, float]:
    """Return what whole checkpoints cost of each payment between their beginnings.

    Raises
    ------
    UnavailableError
        If there are not two, of which the first may be before the first payment.

    Examples
    --------
    >>> some = [(0, 1, 1, 0.5), (50, 2, 1, 0.7), (80, 2, 2, 0.75)]
    >>> samples = [Sample(n, 9.0, begun, written, s, 0.0) for n, begun, written, s in some]
    >>> costs(samples)["_us_per_tx"]
    5000.0
    """
    begun: dict[float, int] = {}
    written: dict[float, Sample] = {}
    for sample in samples:
        begun.setdefault(sample.begun, sample.decisions)
        written.setdefault(sample.written, sample)  # later ones have some of the next in them
    whole = sorted(begun.keys() & written.keys() - {0.0})
    if len(whole) < 2:
        raise UnavailableError(f"expected two checkpoints, got {len(whole)}: too few payments")
    first, last = written[whole[0]], written[whole[-1]]
    paid = begun[whole[-1]] - begun[whole[0]]
    return {
        "_us_per_tx": (last.spent_s - first.spent_s) / paid * 1e6,
        "_bytes_per_tx": (last.sent_bytes - first.sent_bytes) / paid,
        "_tx_per_checkpoint": paid / (whole[-1] - whole[0]),
    }


def _cpu_us(samples: Sequence[Sample]) -> float:
    """Return the processor microseconds a payment, from a fifth of them to the last."""
    last = samples[-1]
    first = next(one for one in samples if one.decisions >= last.decisions * WARM_SHARE)
    return (last.cpu_s - first.cpu_s) / (last.decisions - first.decisions) * 1e6


def _watched(
    rig: Rig, state_dir: Path, added: Mapping[str, str], n: int, *, least: int
) -> list[Sample]:
    """Have a worker answer the backlog and write so many checkpoints; return what was seen."""
    copy = rig.bank.directory / "copy"
    shutil.copytree(state_dir, copy)
    try:
        _new_changelog(rig.bank.bootstrap)
        return list(_samples(rig, copy, added, n, least))
    finally:
        shutil.rmtree(copy)


def _samples(
    rig: Rig, state_dir: Path, added: Mapping[str, str], n: int, least: int
) -> Iterator[Sample]:
    with DecisionLog(rig.bank.bootstrap) as log, rig.worker(added, state_dir) as service:
        before, until_s, seen = log.end(), time.monotonic() + _TIMEOUT_S, Sample()
        while seen.decisions < n or seen.written < max(seen.begun, least):
            check(service, until_s, "decisions")
            time.sleep(_SAMPLE_S)
            done, found = log.end() - before, service.metrics()
            if found:
                seen = Sample(
                    done,
                    cpu_s(service.process.pid),
                    found[BEGUN],
                    found[WRITTEN],
                    found["amalgam_stream_checkpoint_cpu_seconds_total"],
                    found["amalgam_stream_changelog_bytes_total"],
                )
                yield seen


def _new_changelog(bootstrap: str) -> None:
    plan = [one for one in bank_plan(BANK, partitions=PARTITIONS) if "changelog" in one.name]
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.delete_topics([one.name for one in plan])
        wait_until(lambda: plan[0].name not in admin.list_topics(), "the changelog deleted")
    finally:
        admin.close()
    create_topics(bootstrap, plan)
