"""What a payment and an account cost a worker that knows many accounts; no broker.

Workers that know 10 thousand, 100 thousand and a million accounts read the same flow of payments,
800,000 a day, so that only the number of accounts differs: a million payments in which every
account pays once and then at random, and after those the payments that are timed. Each payment
names a terminal and a merchant, a third of them a device; there are .75 entities an account. All
are drawn with equal chance, which is the worst for caches: real accounts do not pay evenly.

The worker has a trained scorecard of its own (`deploy.bench.pieces.make_workload`). A payment
counts as legitimate after a day, so that from the second day on one is learnt for each that is
scored; no day ends among those that are timed, and nothing is stored or published.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from time import process_time

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from deploy.bank_formats import BankFormat
from deploy.bench.fold_scale import measure_folds
from deploy.bench.own_process import in_own_process, resident_bytes
from deploy.bench.pieces import CHUNK, BenchRecord, make_workload
from models.errors import InvalidInputError, UnavailableError
from models.mapping import Mapping
from models.records import AttributeColumn, TransactionBatch
from models.topics import BankTopics
from models.words import Words
from stream.account_table import AccountTable
from stream.entity_table import EntityTable
from stream.pipeline import Pipeline
from stream.pipeline_state import dump, restore
from stream.telemetry import Telemetry
from stream.worker import BankWorker

_DAY_S = 86_400
_DAY_MS = _DAY_S * 1_000
_SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
_SEED = 1
_ONLINE_SHARE = 0.35
_SHARES = {"terminal": 0.5, "merchant": 0.05, "device": 0.2}
"""Entities of each kind for each account."""
_KIND = "terminal"
_SECRET = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountsConfig:
    """How much a worker reads.

    Parameters
    ----------
    customers
        Of the simulated bank whose trained worker goes on with the accounts.
    warm
        Payments before those that are timed, at least one an account.
    timed, rounds
        Payments of a round, and rounds; the least of them counts.
    per_day
        Payments of a day of event time.

    Raises
    ------
    InvalidInputError
        If a day ends among the payments that are timed.
    """

    customers: int = 2_000
    warm: int = 1_000_000
    timed: int = 100_000
    rounds: int = 3
    per_day: int = 800_000

    def __post_init__(self) -> None:
        last = self.warm + self.timed * self.rounds - 1
        if self.warm // self.per_day != last // self.per_day:
            raise InvalidInputError(
                f"expected payments {self.warm} to {last} on one day of {self.per_day} payments"
            )


class Payments:
    """Payments of accounts drawn with equal chance, as a bank's records; each account pays once.

    Parameters
    ----------
    mapping
        Of the bank, that of `deploy.bench.pieces.make_workload`.
    topic
        That the records are of.
    start_ms
        Time of the first payment, a midnight.
    n_accounts
        That pay.
    per_day
        Payments of a day.
    """

    def __init__(
        self, mapping: Mapping, topic: str, *, start_ms: int, n_accounts: int, per_day: int
    ) -> None:
        self._format = BankFormat(mapping)
        self._topic = topic
        self._start_ms = start_ms
        self._rng = np.random.default_rng(_SEED)
        self._first = self._rng.permutation(n_accounts)
        self._n_accounts = n_accounts
        self._per_day = per_day
        self.sent = 0

    def next(self, n: int) -> list[BenchRecord]:
        """Return the next n payments."""
        raws = self._format.transactions(self._batch(n))
        records = [BenchRecord(self._topic, 0, self.sent + i, raw) for i, raw in enumerate(raws)]
        self.sent += n
        return records

    def end_ms(self) -> int:
        """Return the time of the last payment so far."""
        return int(self._times(np.array([self.sent - 1]))[0])

    def _times(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the times of payments, in whole seconds as the bank writes them."""
        since_ms: NDArray[np.int64] = number * _DAY_S // self._per_day * 1_000
        return self._start_ms + since_ms

    def _batch(self, n: int) -> TransactionBatch:
        number = np.arange(self.sent, self.sent + n)
        online, everywhere = self._rng.random(n) < _ONLINE_SHARE, np.ones(n, np.bool_)
        minor = self._rng.lognormal(8.0, 1.0, n).astype(np.int64) + 1
        channel: AttributeColumn = Words.of(["online" if one else "till" for one in online])
        return TransactionBatch(
            transaction_id=[f"S{i:09d}" for i in number.tolist()],
            account_id=[f"N{i:07d}" for i in self._accounts(n).tolist()],
            event_time_ms=self._times(number),
            amount_minor=minor,
            amount=minor / 100.0,
            currency=["CHF"] * n,
            entities={
                "terminal": self._entities("terminal", n, everywhere),
                "merchant": self._entities("merchant", n, everywhere),
                "device": self._entities("device", n, online),
            },
            attributes={"channel": channel},
        )

    def _accounts(self, n: int) -> NDArray[np.int64]:
        first = self._first[self.sent : self.sent + n]
        again = self._rng.integers(self._n_accounts, size=n - len(first))
        return np.concatenate([first, again])

    def _entities(self, kind: str, n: int, named: NDArray[np.bool_]) -> list[str | None]:
        drawn = self._rng.integers(max(int(_SHARES[kind] * self._n_accounts), 1), size=n)
        letter = kind[0].upper()
        pairs = zip(drawn.tolist(), named.tolist(), strict=True)
        return [f"{letter}N{i:07d}" if is_named else None for i, is_named in pairs]


def measure_accounts(
    name: str, n_accounts: int, config: AccountsConfig = AccountsConfig()
) -> dict[str, float]:
    """Return processor time of a payment at a worker that knows so many accounts, and its state.

    Parameters
    ----------
    name
        That stands for the number in the figures' names.
    n_accounts
        How many pay, those of the simulated bank left out.
    config
        How much is read.

    Raises
    ------
    UnavailableError
        If not every account has paid, or a payment is not answered.
    """
    workload = make_workload(config.customers)
    pipeline = restore(replace(workload.config, label_horizon_ms=_DAY_MS), workload.state)
    topics = BankTopics(workload.config.member)
    worker = BankWorker(pipeline, workload.mapping, topics, Telemetry(CollectorRegistry()))
    wanted = pipeline.accounts.size + n_accounts
    payments = Payments(
        workload.mapping,
        topics.transactions,
        start_ms=(pipeline.watermark_ms // _DAY_MS + 1) * _DAY_MS,
        n_accounts=n_accounts,
        per_day=config.per_day,
    )
    for chunk in _chunks(payments, config.warm):
        worker.score(chunk, clock_ms=payments.end_ms())
    if pipeline.accounts.size != wanted:
        raise UnavailableError(f"expected {wanted} accounts, got {pipeline.accounts.size}")
    taken_s = [_round_s(worker, payments, config.timed) for _ in range(config.rounds)]
    us_per_tx = min(taken_s) / config.timed * 1e6
    return {f"us_per_tx_{name}_accounts": us_per_tx, **state_figures(pipeline)}


def _chunks(payments: Payments, n: int) -> Iterator[list[BenchRecord]]:
    for start in range(0, n, CHUNK):
        yield payments.next(min(CHUNK, n - start))


def _round_s(worker: BankWorker, payments: Payments, n: int) -> float:
    """Return the processor seconds of n payments, decoded, scored and answered."""
    chunks = list(_chunks(payments, n))
    clock_ms, answers = payments.end_ms(), 0
    started_s = process_time()
    for chunk in chunks:
        outputs = worker.score(chunk, clock_ms=clock_ms)
        answers += sum(len(one.values) for one in outputs if one.topic == worker.topics.decisions)
    taken_s = process_time() - started_s
    if answers != n:
        raise UnavailableError(f"expected {n} decisions, got {answers}")
    return taken_s


def state_figures(pipeline: Pipeline) -> dict[str, float]:
    """Return the bytes of a stored state for each account, entity and row of the log.

    What is stored is what is in use, without the room that tables have to grow.
    """
    state = dump(pipeline)
    sizes = {
        "account": ("accounts", pipeline.accounts.size),
        "entity": ("entities", pipeline.entities.size),
        "logged_tx": ("log", pipeline.log.size),
    }
    return {
        f"state_bytes_per_{one}": sum(
            state.arrays[name].nbytes for name in state.touched if name.startswith(f"{part}/")
        )
        / size
        for one, (part, size) in sizes.items()
    }


def measure_account_bytes(n: int = _SIZES["1m"]) -> dict[str, float]:
    """Return the memory of a table of accounts, for each: array state, keys, index of keys.

    It is what resident memory grows by. Arrays have room for an eighth more rows than are held, and
    the index for twice to four times as many keys: of the rows' room nothing is in memory before
    it is written, of the index all is. The digests by which texts find their rows count too.
    """
    table = AccountTable(_SECRET)
    table.rows(["first"])  # loads what is compiled
    return {"bytes_per_account": _growth(table.rows, n) / n}


def measure_entity_bytes(n: int = _SIZES["1m"]) -> dict[str, float]:
    """Return the memory of a table of entities of one kind, for each; see `measure_account_bytes`.

    Their names double their room, which counts as soon as it is written.
    """
    table = EntityTable((_KIND,), _SECRET)
    table.rows(0, ["first"])  # loads what is compiled
    return {"bytes_per_entity": _growth(partial(table.rows, 0), n) / n}


def _growth(add: Callable[[list[str]], object], n: int) -> int:
    """Return how far resident memory rises while n texts are added, a chunk at a time."""
    before = resident_bytes()
    for start in range(0, n, CHUNK):
        add([f"N{i:07d}" for i in range(start, min(start + CHUNK, n))])
    return resident_bytes() - before


def measure_scale() -> dict[str, float]:
    """Return all figures of accounts and of members, each size in a process of its own.

    Those of the state are of the most accounts.
    """
    figures: dict[str, float] = {}
    for name, n_accounts in _SIZES.items():
        figures |= in_own_process(measure_accounts, name, n_accounts)
    figures |= in_own_process(measure_account_bytes)
    figures |= in_own_process(measure_entity_bytes)
    return figures | measure_folds()
