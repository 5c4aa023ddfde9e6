"""From a payment's record to its decision, at a steady pace, while summaries and releases pass.

The producer keeps its pace whatever the worker does. Every record carries the wall clock of its
making; the reader of the decisions takes the difference. Event time is the wall clock as well: a
payment counts as legitimate after 20 s and learning is due every second, as by default, so that as
many payments are learnt a second as come in. Summaries are due every 5 s, and go out as often as
checkpoints take their share of a core by default and no more; ``summary_n_N`` of them, and as many
releases, came in the time.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec
import numpy as np
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from numpy.typing import NDArray

from deploy.bench.bank import PARTITIONS, USUAL_SHARE, Answer, BenchBank, cpu_s, steps
from deploy.services import Service
from models.records import TransactionBatch
from stream.outputs import OutputProducer, Outputs

RATES = (500, 3_000, 10_000)
SECONDS = 60.0
LEAD_S = 25.0
_SLOT_S = 0.004
_VERDICT_S = 5.0
_DRAIN_S = 20.0
_SETTINGS = {
    "AMALGAM_STREAM_TICK_S": "1",
    "AMALGAM_STREAM_LABEL_HORIZON_S": "20",
    **USUAL_SHARE,
}


class Probe:
    """Sends payments at a pace and notes when each was made and when its decision was read.

    Parameters
    ----------
    bank
        Whose payments.
    n
        How many there will be in all.
    """

    def __init__(self, bank: BenchBank, n: int) -> None:
        self._bank = bank
        self._outputs = OutputProducer(bank.bootstrap)
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bank.bootstrap, group_id=None)
        self._decode = msgspec.json.Decoder(Answer).decode
        self._verdicts: deque[tuple[float, str, str]] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self.made_s = np.full(n, np.nan)
        self.read_s = np.full(n, np.nan)
        self.n_sent = 0
        self.n_read = 0

    async def start(self) -> None:
        """Connect, behind the decisions that are there already."""
        await self._outputs.start()
        await self._consumer.start()
        topic = self._bank.topics.decisions
        places = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        self._consumer.assign(places)
        await self._consumer.seek_to_end(*places)

    async def stop(self) -> None:
        """Disconnect."""
        await asyncio.gather(*self._sending)
        await self._consumer.stop()
        await self._outputs.stop()

    async def read(self) -> None:
        """Read decisions until cancelled."""
        while True:
            found = await self._consumer.getmany(timeout_ms=100)
            at_s = time.time()
            for records in found.values():
                for record in records:
                    i = int(self._decode(record.value).transaction_id[1:])
                    if np.isnan(self.read_s[i]):
                        self.read_s[i] = at_s
                        self.n_read += 1

    async def send(self, rate: float, seconds: float) -> slice:
        """Send for a time, open loop, and return which payments these were."""
        first, started_s = self.n_sent, time.monotonic()
        total = round(rate * seconds)
        while self.n_sent - first < total:
            due = min(total, int((time.monotonic() - started_s) * rate) + 1)
            if due > self.n_sent - first:
                self._hand_over(self._payments(first + due))
            await asyncio.sleep(_SLOT_S)
        return slice(first, self.n_sent)

    def _hand_over(self, outputs: Sequence[Outputs]) -> None:
        """Send without waiting: a slow broker must not slow the pace."""
        task = asyncio.create_task(self._outputs.send(outputs))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def _payments(self, until: int) -> list[Outputs]:
        at_s = time.time()
        rows = range(self.n_sent, until)
        self.made_s[self.n_sent : until] = at_s
        self.n_sent = until
        batch, is_fraud = self._made(rows, int(at_s * 1_000))
        for i in np.flatnonzero(is_fraud).tolist():
            due_s = at_s + _VERDICT_S
            self._verdicts.append((due_s, batch.transaction_id[i], batch.account_id[i]))
        outputs = [self._bank.payments(batch)]
        while self._verdicts and self._verdicts[0][0] <= at_s:
            _, transaction, account = self._verdicts.popleft()
            outputs.append(self._bank.verdict(transaction, account, at_ms=int(at_s * 1_000)))
        return outputs

    def _made(self, rows: range, at_ms: int) -> tuple[TransactionBatch, NDArray[np.bool_]]:
        """Return simulated payments under new names and of this instant."""
        stream = self._bank.stream
        index = np.arange(rows.start, rows.stop) % len(stream.batch)
        batch = replace(
            stream.batch.take(index),
            transaction_id=[f"L{i}" for i in rows],
            event_time_ms=np.full(len(index), at_ms),
        )
        return batch, stream.is_fraud[index]


def measure_latency(bank: BenchBank, rates: Sequence[int] = RATES) -> dict[str, float]:
    """Return percentiles of produce-to-decision in milliseconds, ``p99_ms_3000`` and so on.

    ``lost_N`` is the share of payments without a decision 20 s after the last; ``checkpoint_ms_N``,
    ``summary_ms_N``, ``install_ms_N`` and ``chunk_ms_N`` say how long the worker's steps of that
    name took at that pace, in the mean; ``worker_cores_N`` is the share of a core that it used.
    """
    with bank.services(_SETTINGS) as worker:
        return uvloop.run(_measure(bank, worker, rates))


async def _measure(bank: BenchBank, worker: Service, rates: Sequence[int]) -> dict[str, float]:
    n = sum(round(rate * LEAD_S) + round(rate * SECONDS) for rate in rates)
    probe = Probe(bank, n)
    await probe.start()
    reading = asyncio.create_task(probe.read())
    figures: dict[str, float] = {}
    try:
        for rate in rates:
            await probe.send(rate, LEAD_S)
            before = await asyncio.to_thread(steps, worker)
            used_s = cpu_s(worker.process.pid)
            rows = await probe.send(rate, SECONDS)
            used_s = cpu_s(worker.process.pid) - used_s
            await _drained(probe)
            after = await asyncio.to_thread(steps, worker)
            found = percentiles(probe.made_s[rows], probe.read_s[rows]) | _means(before, after)
            found["worker_cores"] = used_s / SECONDS
            figures |= {f"{name}_{rate}": value for name, value in found.items()}
            sys.stdout.write(f"{rate:>6} tx/s  ")
            sys.stdout.write("  ".join(f"{k} {v:,.3g}" for k, v in found.items()) + "\n")
            sys.stdout.flush()
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await probe.stop()
    return figures


async def _drained(probe: Probe) -> None:
    until_s = time.monotonic() + _DRAIN_S
    while probe.n_read < probe.n_sent and time.monotonic() < until_s:  # noqa: ASYNC110  # a deadline
        await asyncio.sleep(0.05)


def percentiles(made_s: NDArray[np.float64], read_s: NDArray[np.float64]) -> dict[str, float]:
    """Return percentiles of the difference in milliseconds, and the share that was never read.

    Examples
    --------
    >>> import numpy as np
    >>> percentiles(np.zeros(3), np.array([0.001, 0.002, np.nan]))["p50_ms"]
    1.5
    """
    took_ms = (read_s - made_s) * 1e3
    took_ms = took_ms[~np.isnan(took_ms)]
    p50, p99, p999 = np.percentile(took_ms, [50, 99, 99.9]).tolist()
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": float(took_ms.max()),
        "lost": 1.0 - len(took_ms) / len(made_s),
    }


def _means(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Return the mean duration of each step between two readings, and how many there were."""
    found = {}
    for name, (n_after, after_s) in after.items():
        n_before, before_s = before.get(name, (0.0, 0.0))
        n = n_after - n_before
        found[f"{name}_ms"] = (after_s - before_s) / n * 1e3 if n else 0.0
        found[f"{name}_n"] = n
    return found
