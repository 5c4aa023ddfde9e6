"""A bank's JSON records -> canonical transactions and labels, by the bank's mapping.

A bad record never raises: it comes back as (row, reason, detail), the reason out of
`models.fields.REASONS`, the detail without any value of the record. The others become columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from models import columns
from models.columns import Faults
from models.errors import DecodeError
from models.mapping import Always, LabelMapping, Mapping, Place
from models.records import Label, TransactionBatch

MAX_RECORD_BYTES = 1 << 18
RecordError = tuple[int, str, str]
"""Row of the input, reason, detail."""

_T = TypeVar("_T")
_Object = dict[str, object]


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
    """Decodes chunks of one bank's transaction records; about 3 us a record in chunks of 1,000."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._decoder = msgspec.json.Decoder()

    def decode(self, values: Sequence[bytes]) -> DecodedTransactions:
        """Return the good records as a batch and the bad ones as errors."""
        faults: Faults = {}
        objects = _Objects(parse_objects(self._decoder, values, faults), faults)
        batch = transaction_batch(self._mapping, objects, faults)
        rows = np.array([i for i in range(len(values)) if i not in faults], np.int64)
        return DecodedTransactions(
            batch=take_rows(batch, rows) if faults else batch,
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
        self._decoder = msgspec.json.Decoder()

    def decode(self, values: Sequence[bytes]) -> DecodedLabels:
        """Return the good records as labels and the bad ones as errors."""
        faults: Faults = {}
        if self._mapping.label is None:
            fault = ("missing_field", "the mapping has no [label] table")
            faults = dict.fromkeys(range(len(values)), fault)
            return DecodedLabels(
                labels=[], source_rows=np.empty(0, np.int64), errors=listed(faults)
            )
        objects = _Objects(parse_objects(self._decoder, values, faults), faults)
        labels = self._labels(self._mapping.label, objects, faults)
        keep = [i for i in range(len(labels)) if i not in faults]
        return DecodedLabels(
            labels=[labels[i] for i in keep],
            source_rows=np.array(keep, np.int64),
            errors=listed(faults),
        )

    def _labels(self, label: LabelMapping, objects: "_Objects", faults: Faults) -> list[Label]:
        ids = columns.texts(objects.column(label.transaction_id.path), "transaction_id", faults)
        verdict = columns.verdicts(
            objects.column(label.is_fraud.path), self._mapping.verdicts, faults
        )
        sources = columns.sources(objects.of(label.source), label, faults)
        at_ms = columns.instants(
            objects.column(label.labelled_at.path), label.time, "labelled_at", faults
        )
        return [
            Label(transaction_id=each, is_fraud=fraud, source=source, labelled_at_ms=ms)
            for each, fraud, source, ms in zip(
                ids, verdict.tolist(), sources, at_ms.tolist(), strict=True
            )
        ]


def transaction_batch(mapping: Mapping, objects: "_Objects", faults: Faults) -> TransactionBatch:
    """Return all rows as a batch; rows in ``faults`` hold placeholders."""
    ids = columns.texts(objects.column(mapping.transaction_id.path), "transaction_id", faults)
    accounts = columns.texts(objects.column(mapping.account_id.path), "account_id", faults)
    at_ms = columns.instants(
        objects.column(mapping.event_time.path), mapping.time, "event_time", faults
    )
    codes = objects.of(mapping.currency)
    currencies = list(mapping.currencies.values())
    index = columns.currency_indices(codes, mapping, faults)
    minor = columns.minors(
        objects.column(mapping.amount.path),
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
            kind: columns.optional_texts(objects.column(at.path), kind, faults)
            for kind, at in mapping.entities.items()
        },
        attributes={
            name: columns.attributes(objects.column(place.at.path), name, place, faults)
            for name, place in mapping.attributes.items()
        },
    )


def take_rows(batch: TransactionBatch, rows: NDArray[np.int64]) -> TransactionBatch:
    """Return some rows of a batch, in the order asked for."""
    return TransactionBatch(
        transaction_id=pick(batch.transaction_id, rows),
        account_id=pick(batch.account_id, rows),
        event_time_ms=batch.event_time_ms[rows],
        amount_minor=batch.amount_minor[rows],
        amount=batch.amount[rows],
        currency=pick(batch.currency, rows),
        entities={kind: pick(each, rows) for kind, each in batch.entities.items()},
        attributes={name: column[rows] for name, column in batch.attributes.items()},
    )


def pick(values: Sequence[_T], rows: NDArray[np.int64]) -> list[_T]:
    """Return some values of a column, in the order asked for."""
    return [values[i] for i in rows.tolist()]


def parse_objects(
    decoder: msgspec.json.Decoder[object], values: Sequence[bytes], faults: Faults
) -> list[_Object]:
    """Return one JSON object per record, an empty one where there is none."""
    objects = []
    for i, value in enumerate(values):
        try:
            objects.append(_parse_object(decoder, value))
        except DecodeError as error:
            faults[i] = (error.reason, error.detail)
            objects.append({})
    return objects


def listed(faults: Faults) -> list[RecordError]:
    """Return faults as errors, by row."""
    return [(row, *faults[row]) for row in sorted(faults)]


def _parse_object(decoder: msgspec.json.Decoder[object], value: bytes | None) -> _Object:
    if value is None:
        raise DecodeError("not_an_object", "expected a JSON object, got a record without value")
    if len(value) > MAX_RECORD_BYTES:
        raise DecodeError("too_large", f"expected at most {MAX_RECORD_BYTES} bytes")
    try:
        record = decoder.decode(value)
    except msgspec.ValidationError as error:
        raise DecodeError("too_large", "expected numbers within float64") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("malformed_json", "expected JSON in UTF-8") from error
    if type(record) is not dict:
        raise DecodeError("not_an_object", "expected a JSON object")
    return record


class _Objects:
    """Columns of a list of objects; objects on the way of several paths are looked up once."""

    def __init__(self, records: list[_Object], faults: Faults) -> None:
        self._inner: dict[tuple[str, ...], list[_Object]] = {(): records}
        self._faults = faults

    def __len__(self) -> int:
        return len(self._inner[()])

    def column(self, path: tuple[str, ...]) -> list[object]:
        """Return what stands at a path, None where nothing does."""
        key = path[-1]
        return [record.get(key) for record in self._objects(path[:-1])]

    def of(self, place: Place) -> Sequence[object]:
        """Return a column or the constant, repeated."""
        if isinstance(place, Always):
            return [place.value] * len(self)
        return self.column(place.path)

    def _objects(self, path: tuple[str, ...]) -> list[_Object]:
        if path not in self._inner:
            found = self.column(path)
            if set(map(type, found)) != {dict}:
                found = [self._object(i, each, path) for i, each in enumerate(found)]
            self._inner[path] = found  # type: ignore[assignment]  # dicts by now
        return self._inner[path]

    def _object(self, row: int, found: object, path: tuple[str, ...]) -> _Object:
        if type(found) is dict:
            return found
        if found is not None:
            detail = f"{'.'.join(path)}: expected an object"
            self._faults.setdefault(row, ("wrong_type", detail))
        return {}
