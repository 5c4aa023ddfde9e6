"""A bank's JSON records -> canonical transactions and labels, by the bank's mapping.

A bad record never raises: it comes back as (row, reason, detail), the reason out of
`models.fields.REASONS`, the detail without any value of the record. The others become columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models import columns
from models.mapping import Always, LabelMapping, Mapping, Place
from models.record_shapes import Faults, Path, RecordColumns, RecordReader, Texts
from models.records import Label, TransactionBatch

RecordError = tuple[int, str, str]
"""Row of the input, reason, detail."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedTransactions:
    """What came out of a chunk of records.

    Parameters
    ----------
    batch
        The good records, in the order of the input.
    source_rows
        ndarray of shape (len(batch),), int64: which input each row of the batch was.
    errors
        The bad records.
    """

    batch: TransactionBatch
    source_rows: NDArray[np.int64]
    errors: list[RecordError]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedLabels:
    """What came out of a chunk of label records; fields as in `DecodedTransactions`."""

    labels: list[Label]
    source_rows: NDArray[np.int64]
    errors: list[RecordError]


class TransactionDecoder:
    """Decodes chunks of one bank's transaction records; about 1 us a record in chunks of 1,000."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._reader = RecordReader(_transaction_paths(mapping), _transaction_texts(mapping))

    def decode(self, values: Sequence[bytes | None]) -> DecodedTransactions:
        """Return the good records as a batch and the bad ones as errors."""
        faults: Faults = {}
        batch = transaction_batch(self._mapping, self._reader.read(values, faults), faults)
        rows = np.delete(np.arange(len(values)), list(faults))
        return DecodedTransactions(
            batch=batch.take(rows) if faults else batch,
            source_rows=rows,
            errors=listed(faults),
        )


class LabelDecoder:
    """Decodes chunks of one bank's label records.

    Parameters
    ----------
    mapping
        When it has no ``[label]`` table, every record is an error.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._reader = RecordReader(_label_paths(mapping))

    def decode(self, values: Sequence[bytes | None]) -> DecodedLabels:
        """Return the good records as labels and the bad ones as errors."""
        faults: Faults = {}
        if self._mapping.label is None:
            fault = ("missing_field", "the mapping has no [label] table")
            faults = dict.fromkeys(range(len(values)), fault)
            return DecodedLabels(
                labels=[], source_rows=np.empty(0, np.int64), errors=listed(faults)
            )
        records = self._reader.read(values, faults)
        labels = self._labels(self._mapping.label, records, faults)
        keep = [i for i in range(len(labels)) if i not in faults]
        return DecodedLabels(
            labels=[labels[i] for i in keep],
            source_rows=np.array(keep, np.int64),
            errors=listed(faults),
        )

    def _labels(self, label: LabelMapping, records: RecordColumns, faults: Faults) -> list[Label]:
        ids = columns.texts(records.column(label.transaction_id.path), "transaction_id", faults)
        verdict = columns.verdicts(
            records.column(label.is_fraud.path), self._mapping.verdicts, faults
        )
        sources = columns.sources(_of(records, label.source), label, faults)
        at_ms = columns.instants(
            records.column(label.labelled_at.path), label.time, "labelled_at", faults
        )
        return [
            Label(transaction_id=each, is_fraud=fraud, source=source, labelled_at_ms=ms)
            for each, fraud, source, ms in zip(
                ids, verdict.tolist(), sources, at_ms.tolist(), strict=True
            )
        ]


def _transaction_paths(mapping: Mapping) -> list[Path]:
    attributes = [place.at for place in mapping.attributes.values()]
    return _paths(
        *(mapping.transaction_id, mapping.account_id, mapping.event_time, mapping.amount),
        *(mapping.currency, *mapping.entities.values(), *attributes),
    )


def _transaction_texts(mapping: Mapping) -> Texts:
    optional = [*mapping.entities.values()]
    optional += [place.at for place in mapping.attributes.values() if place.type == "text"]
    needed = _paths(mapping.transaction_id, mapping.account_id)
    return dict.fromkeys(_paths(*optional), False) | dict.fromkeys(needed, True)


def _label_paths(mapping: Mapping) -> list[Path]:
    label = mapping.label
    if label is None:
        return []
    return _paths(label.transaction_id, label.is_fraud, label.source, label.labelled_at)


def _paths(*places: Place) -> list[Path]:
    return [place.path for place in places if not isinstance(place, Always)]


def _of(records: RecordColumns, place: Place) -> Sequence[object]:
    """Return a column or the constant, repeated."""
    if isinstance(place, Always):
        return [place.value] * len(records)
    return records.column(place.path)


def transaction_batch(mapping: Mapping, records: RecordColumns, faults: Faults) -> TransactionBatch:
    """Return all rows as a batch; rows in ``faults`` hold placeholders."""
    are_checked = records.are_checked
    texts = partial(columns.texts, faults=faults, are_checked=are_checked)
    optional_texts = partial(columns.optional_texts, faults=faults, are_checked=are_checked)
    attributes = partial(columns.attributes, faults=faults, are_checked=are_checked)
    ids = texts(records.column(mapping.transaction_id.path), "transaction_id")
    accounts = texts(records.column(mapping.account_id.path), "account_id")
    at_ms = columns.instants(
        records.column(mapping.event_time.path), mapping.time, "event_time", faults
    )
    codes = _of(records, mapping.currency)
    currencies = list(mapping.currencies.values())
    index = columns.currency_indices(codes, mapping, faults)
    minor = columns.minors(
        records.column(mapping.amount.path),
        columns.exponents_of(currencies, index),
        mapping.unit,
        faults,
    )
    return TransactionBatch(
        transaction_id=ids,
        account_id=accounts,
        event_time_ms=at_ms,
        amount_minor=minor,
        amount=columns.reference_amounts(minor, currencies, index),
        currency=codes,  # type: ignore[arg-type]  # texts where the row is good
        entities={
            kind: optional_texts(records.column(at.path), kind)
            for kind, at in mapping.entities.items()
        },
        attributes={
            name: attributes(records.column(place.at.path), name, place)
            for name, place in mapping.attributes.items()
        },
    )


def listed(faults: Faults) -> list[RecordError]:
    """Return faults as errors, by row."""
    return [(row, *faults[row]) for row in sorted(faults)]
