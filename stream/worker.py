"""A worker's records in, records out: decoding, scoring and dead letters around the pipeline.

No Kafka client, clock or disk in here: the shell hands in chunks of records as they were read and
sends what comes back.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.decoding import LabelDecoder, TransactionDecoder
from models.mapping import Mapping
from models.records import DeadLetter, Decision, TransactionBatch
from models.topics import BankTopics
from stream.alerts import probability
from stream.label_join import Rejected
from stream.outputs import Output
from stream.pipeline import Pipeline, Scored
from stream.sequencer import Place, Sequencer, Step
from stream.telemetry import Telemetry

WATERMARK_HEADER = "amalgam-watermark"
_OUTCOMES = ("joined", "duplicates", "contradicting", "dropped")


class Record(Protocol):
    """A Kafka record as its client gives it."""

    @property
    def topic(self) -> str: ...  # noqa: D102  # protocol
    @property
    def partition(self) -> int: ...  # noqa: D102  # protocol
    @property
    def offset(self) -> int: ...  # noqa: D102  # protocol
    @property
    def value(self) -> bytes | None: ...  # noqa: D102  # protocol
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...  # noqa: D102  # protocol


class BankWorker:
    """One bank's records through one pipeline.

    Parameters
    ----------
    pipeline
        New or restored.
    mapping
        The bank's.
    topics
        The bank's.
    telemetry
        Counts what happens.
    """

    def __init__(
        self, pipeline: Pipeline, mapping: Mapping, topics: BankTopics, telemetry: Telemetry
    ) -> None:
        self.pipeline = pipeline
        self.topics = topics
        self._transactions = TransactionDecoder(mapping)
        self._labels = LabelDecoder(mapping)
        self.telemetry = telemetry
        self._encoder = msgspec.json.Encoder()
        self._label_counts = {name: getattr(pipeline.labels, name) for name in _OUTCOMES}

    def score(self, records: Sequence[Record], *, clock_ms: int) -> list[Output]:
        """Score a chunk of transaction records as they come (live)."""
        records = [record for record in records if watermark_of(record) is None]
        if not records:
            return []
        decoded = self._transactions.decode([record.value for record in records])  # type: ignore[misc]  # None is an error of its own
        outputs = self._dead_letters(records, decoded.errors)
        scored = self.pipeline.score(decoded.batch, clock_ms=clock_ms, source=records[0].partition)
        rejected = [(int(decoded.source_rows[r.row]), r.reason, r.detail) for r in scored.rejected]
        return [
            *outputs,
            *self._dead_letters(records, rejected),
            *self._answers(decoded.batch, scored),
        ]

    def learn(self, records: Sequence[Record]) -> list[Output]:
        """Take a chunk of label records in as they come (live)."""
        records = [record for record in records if watermark_of(record) is None]
        if not records:
            return []
        decoded = self._labels.decode([record.value for record in records])  # type: ignore[misc]  # None is an error of its own
        rejected = self.pipeline.learn(decoded.labels)
        self._count_labels()
        refused = [(int(decoded.source_rows[r.row]), r.reason, r.detail) for r in rejected]
        return self._dead_letters(records, [*decoded.errors, *refused])

    def hold(self, sequencer: Sequencer, records: Sequence[Record]) -> list[Output]:
        """Hand a chunk of either topic to the sequencer (replay); return dead letters."""
        last = records[-1]
        place = (last.topic, last.partition)
        outputs: list[Output] = []
        start = 0
        for i, record in enumerate([*records, None]):
            mark = None if record is None else watermark_of(record)
            if record is not None and mark is None:
                continue
            if i > start:
                outputs += self._hold_plain(sequencer, place, records[start:i])
            if mark is not None:
                sequencer.watermark(place, mark, records[i].offset)
            start = i + 1
        sequencer.seen(place, last.offset)
        return outputs

    def _hold_plain(
        self, sequencer: Sequencer, place: tuple[str, int], records: Sequence[Record]
    ) -> list[Output]:
        values = [record.value for record in records]
        offsets = np.array([record.offset for record in records], np.int64)
        if place[0] == self.topics.labels:
            labels = self._labels.decode(values)  # type: ignore[arg-type]  # None is an error of its own
            sequencer.add_labels(place, labels.labels, offsets[labels.source_rows].tolist())
            return self._dead_letters(records, labels.errors)
        decoded = self._transactions.decode(values)  # type: ignore[arg-type]  # None is an error of its own
        sequencer.add_transactions(place, decoded.batch, offsets[decoded.source_rows])
        return self._dead_letters(records, decoded.errors)

    def begin(self, step: Step) -> list[Output]:
        """Do the first half of a step: labels, and what is due by its tick."""
        rejected = self.pipeline.learn(step.labels)
        self.pipeline.advance(step.tick_ms)
        self._count_labels()
        return self._late_letters(step.label_places, rejected)

    def finish(self, step: Step) -> list[Output]:
        """Do the second half of a step: score its transactions."""
        if step.transactions is None:
            return []
        scored = self.pipeline.score(step.transactions)
        return [
            *self._late_letters(step.transaction_places, scored.rejected),
            *self._answers(step.transactions, scored),
        ]

    def _answers(self, batch: TransactionBatch, scored: Scored) -> Iterator[Output]:
        n_alerts = len(scored.alerts)
        self.telemetry.scored.labels("alert").inc(n_alerts)
        self.telemetry.scored.labels("pass").inc(len(scored.accepted) - n_alerts)
        encode, topic = self._encoder.encode, self.topics.decisions
        accounts = batch.account_id
        rows = scored.accepted.tolist()
        for row, decision in zip(rows, decisions_of(batch, scored), strict=True):
            yield Output(topic, accounts[row].encode(), encode(decision))
        for alert in scored.alerts:
            yield Output(self.topics.alerts, alert.account_id.encode(), encode(alert))

    def _dead_letters(
        self, records: Sequence[Record], errors: Sequence[tuple[int, str, str]]
    ) -> list[Output]:
        outputs = []
        for row, reason, detail in errors:
            self.telemetry.dead_letters.labels(reason).inc()
            outputs.append(self.dead_letter(records[row], reason, detail))
        return outputs

    def _late_letters(self, places: Sequence[Place], rejected: Sequence[Rejected]) -> list[Output]:
        """Return dead letters of records that were held back: their text is no longer here."""
        outputs = []
        for row, reason, detail in rejected:
            self.telemetry.dead_letters.labels(reason).inc()
            outputs.append(self._letter(places[row], b"", reason, detail))
        return outputs

    def dead_letter(self, record: Record, reason: str, detail: str) -> Output:
        """Return the dead letter of a record."""
        place = (record.topic, record.partition), record.offset
        return self._letter(place, record.value or b"", reason, detail)

    def _letter(self, place: Place, payload: bytes, reason: str, detail: str) -> Output:
        (topic, partition), offset = place
        letter = DeadLetter(
            reason=reason,
            detail=detail,
            topic=topic,
            partition=partition,
            offset=offset,
            payload=payload,
        )
        key = f"{topic}/{partition}/{offset}".encode()
        return Output(self.topics.dead_letters, key, self._encoder.encode(letter))

    def _count_labels(self) -> None:
        join = self.pipeline.labels
        for name, outcome in zip(
            _OUTCOMES, ("joined", "duplicate", "contradicting", "parked_dropped"), strict=True
        ):
            now = getattr(join, name)
            self.telemetry.labels.labels(outcome).inc(max(now - self._label_counts[name], 0))
            self._label_counts[name] = now
        self.telemetry.labels_parked.set(len(join.parked))


def watermark_of(record: Record) -> int | None:
    """Return the instant of a watermark record, None for any other record."""
    for name, value in record.headers or ():
        if name == WATERMARK_HEADER and value.isdigit():
            return int(value)
    return None


def decisions_of(batch: TransactionBatch, scored: Scored) -> Iterator[Decision]:
    """Yield the decision on each accepted row of a batch."""
    y_score: NDArray[np.float64] = probability(scored.logit)
    release = str(scored.release)
    for row, event_ms, score, alert, experts in zip(
        scored.accepted.tolist(),
        batch.event_time_ms[scored.accepted].tolist(),
        y_score.tolist(),
        scored.alert.tolist(),
        scored.scores.tolist(),
        strict=True,
    ):
        yield Decision(
            transaction_id=batch.transaction_id[row],
            event_time_ms=event_ms,
            y_score=score,
            alert=alert,
            release=release,
            # a NaN, which is not equal to itself: that expert has no score yet
            expert_scores={n: s for n, s in zip(scored.experts, experts, strict=True) if s == s},  # noqa: PLR0124
        )
