"""A worker's records in, records out: decoding, scoring and dead letters around the pipeline.

No Kafka client, clock or disk in here: the shell hands in chunks of records as they were read and
sends what comes back.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Protocol

import msgspec
import numpy as np

from models.decoding import LabelDecoder, TransactionDecoder
from models.mapping import Mapping
from models.records import DeadLetter, TransactionBatch
from models.topics import BankTopics
from stream.answering import Answering
from stream.label_join import Rejected
from stream.outputs import Outputs
from stream.pipeline import Pipeline
from stream.scored import Scored
from stream.sequencer import Place, Sequencer, Step
from stream.telemetry import Telemetry

WATERMARK_HEADER = "amalgam-watermark"
_HEADERS = attrgetter("headers")
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
        self._answering = Answering(pipeline.panel.names)
        self._label_counts = {name: getattr(pipeline.labels, name) for name in _OUTCOMES}

    def score(self, records: Sequence[Record], *, clock_ms: int) -> list[Outputs]:
        """Score a chunk of transaction records as they come (live)."""
        records = _plain(records)
        if not records:
            return []
        decoded = self._transactions.decode([record.value for record in records])
        outputs = self._dead_letters(records, decoded.errors)
        scored = self.pipeline.score(decoded.batch, clock_ms=clock_ms, source=records[0].partition)
        rejected = [(int(decoded.source_rows[r.row]), r.reason, r.detail) for r in scored.rejected]
        return [
            *outputs,
            *self._dead_letters(records, rejected),
            *self._answers(decoded.batch, scored),
        ]

    def learn(self, records: Sequence[Record]) -> list[Outputs]:
        """Take a chunk of label records in as they come (live)."""
        records = _plain(records)
        if not records:
            return []
        decoded = self._labels.decode([record.value for record in records])
        rejected = self.pipeline.learn(decoded.labels)
        self._count_labels()
        refused = [(int(decoded.source_rows[r.row]), r.reason, r.detail) for r in rejected]
        return self._dead_letters(records, [*decoded.errors, *refused])

    def hold(self, sequencer: Sequencer, records: Sequence[Record]) -> list[Outputs]:
        """Hand a chunk of either topic to the sequencer (replay); return dead letters."""
        last = records[-1]
        place = (last.topic, last.partition)
        outputs: list[Outputs] = []
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
    ) -> list[Outputs]:
        values = [record.value for record in records]
        offsets = np.array([record.offset for record in records], np.int64)
        if place[0] == self.topics.labels:
            labels = self._labels.decode(values)
            sequencer.add_labels(place, labels.labels, offsets[labels.source_rows].tolist())
            return self._dead_letters(records, labels.errors)
        decoded = self._transactions.decode(values)
        sequencer.add_transactions(place, decoded.batch, offsets[decoded.source_rows])
        return self._dead_letters(records, decoded.errors)

    def begin(self, step: Step) -> list[Outputs]:
        """Do the first half of a step: labels, and what is due by its tick."""
        rejected = self.pipeline.learn(step.labels)
        self.pipeline.advance(step.tick_ms)
        self._count_labels()
        return self._late_letters(step.label_places, rejected)

    def finish(self, step: Step) -> list[Outputs]:
        """Do the second half of a step: score its transactions."""
        if step.transactions is None:
            return []
        scored = self.pipeline.score(step.transactions)
        return [
            *self._late_letters(step.transaction_places, scored.rejected),
            *self._answers(step.transactions, scored),
        ]

    def _answers(self, batch: TransactionBatch, scored: Scored) -> list[Outputs]:
        n_alerts = len(scored.alerts)
        self.telemetry.scored.labels("alert").inc(n_alerts)
        self.telemetry.scored.labels("pass").inc(len(scored.accepted) - n_alerts)
        if not len(scored.accepted):
            return []
        encode = self._encoder.encode
        answered = batch.take(scored.accepted)
        keys = list(map(str.encode, answered.account_id))
        decisions = list(map(encode, self._answering.decisions(answered, scored)))
        outputs = [Outputs(self.topics.decisions, keys, decisions)]
        if n_alerts:
            keys = [alert.account_id.encode() for alert in scored.alerts]
            outputs.append(Outputs(self.topics.alerts, keys, list(map(encode, scored.alerts))))
        return outputs

    def _dead_letters(
        self, records: Sequence[Record], errors: Sequence[tuple[int, str, str]]
    ) -> list[Outputs]:
        letters = []
        for row, reason, detail in errors:
            record = records[row]
            place = (record.topic, record.partition), record.offset
            letters.append(_letter(place, record.value or b"", reason, detail))
        return self._told(letters)

    def _late_letters(self, places: Sequence[Place], rejected: Sequence[Rejected]) -> list[Outputs]:
        """Return dead letters of records that were held back: their text is no longer here."""
        return self._told([_letter(places[row], b"", *why) for row, *why in rejected])

    def _told(self, letters: Sequence[DeadLetter]) -> list[Outputs]:
        """Count dead letters and return them as records."""
        if not letters:
            return []
        for letter in letters:
            self.telemetry.dead_letters.labels(letter.reason).inc()
        keys = [f"{each.topic}/{each.partition}/{each.offset}".encode() for each in letters]
        return [Outputs(self.topics.dead_letters, keys, list(map(self._encoder.encode, letters)))]

    def _count_labels(self) -> None:
        join = self.pipeline.labels
        for name, outcome in zip(
            _OUTCOMES, ("joined", "duplicate", "contradicting", "parked_dropped"), strict=True
        ):
            now = getattr(join, name)
            self.telemetry.labels.labels(outcome).inc(max(now - self._label_counts[name], 0))
            self._label_counts[name] = now
        self.telemetry.labels_parked.set(len(join.parked))


def _plain(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records that are no watermarks."""
    if not any(map(_HEADERS, records)):
        return records
    return [record for record in records if watermark_of(record) is None]


def watermark_of(record: Record) -> int | None:
    """Return the instant of a watermark record, None for any other record."""
    for name, value in record.headers or ():
        if name == WATERMARK_HEADER and value.isdigit():
            return int(value)
    return None


def _letter(place: Place, payload: bytes, reason: str, detail: str) -> DeadLetter:
    (topic, partition), offset = place
    return DeadLetter(
        reason=reason,
        detail=detail,
        topic=topic,
        partition=partition,
        offset=offset,
        payload=payload,
    )
