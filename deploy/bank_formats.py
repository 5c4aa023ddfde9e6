"""Canonical transactions and labels -> a bank's own JSON records: the inverse of its mapping."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.mapping import EPOCH_UNITS_MS, Always, At, LabelMapping, Mapping, Place, TimeFormat
from models.records import Label, TransactionBatch, written_values

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Object = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledBatch:
    """Transactions of one bank in time order, and which are fraudulent."""

    batch: TransactionBatch
    is_fraud: NDArray[np.bool_]


class BankFormat:
    """Writes records as a bank writes them.

    A transaction or label that is written and decoded again with the same mapping is the same,
    to the minor unit and the millisecond.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._write_time = time_writer(mapping.time)
        self._write_label_time = time_writer(mapping.label.time if mapping.label else mapping.time)
        self._exponents = {code: each.exponent for code, each in mapping.currencies.items()}

    def transactions(self, batch: TransactionBatch) -> list[bytes]:
        """Return one record per row.

        Raises
        ------
        InvalidInputError
            If the bank's time format cannot express an instant.
        """
        times = batch.event_time_ms.tolist()
        minors = batch.amount_minor.tolist()
        attributes = {
            place.at: written_values(batch.attributes[name])
            for name, place in self._mapping.attributes.items()
        }
        return [
            msgspec.json.encode(self._transaction(batch, i, at_ms, minor, attributes))
            for i, (at_ms, minor) in enumerate(zip(times, minors, strict=True))
        ]

    def label(self, label: Label, account_id: str) -> bytes:
        """Return the record of a label.

        Raises
        ------
        InvalidInputError
            If the mapping has no ``[label]`` or its time format cannot express the instant.
        """
        places = self._mapping.label
        if places is None:
            raise InvalidInputError(
                f"{self._mapping.bank}: expected a [label] table in the mapping, got none"
            )
        record: _Object = {}
        _put(record, places.transaction_id, label.transaction_id)
        _put(record, places.account_id, account_id)
        _put(record, places.is_fraud, self._mapping.verdicts.written[label.is_fraud])
        _put(record, places.source, _own_word(label, places))
        _put(record, places.labelled_at, self._write_label_time(label.labelled_at_ms))
        return msgspec.json.encode(record)

    def _transaction(
        self,
        batch: TransactionBatch,
        i: int,
        at_ms: int,
        minor: int,
        attributes: dict[At, Sequence[float | str | None]],
    ) -> _Object:
        mapping = self._mapping
        code = batch.currency[i]
        exponent = self._exponents[code] if mapping.unit == "decimal" else 0
        record: _Object = {}
        _put(record, mapping.transaction_id, batch.transaction_id[i])
        _put(record, mapping.account_id, batch.account_id[i])
        _put(record, mapping.event_time, self._write_time(at_ms))
        _put(record, mapping.amount, minor / 10**exponent if exponent else minor)
        _put(record, mapping.currency, code)
        for kind, at in mapping.entities.items():
            _put(record, at, batch.entities[kind][i])
        for at, values in attributes.items():
            _put(record, at, values[i])
        return record


def time_writer(time: TimeFormat) -> Callable[[int], object]:
    """Return the function from milliseconds since 1970 UTC to what a bank writes."""
    unit_ms = EPOCH_UNITS_MS.get(time.format)
    if unit_ms is not None:
        return lambda at_ms: _epoch(at_ms - time.origin_ms, unit_ms)
    zone: tzinfo = UTC if time.zone is None else ZoneInfo(time.zone)
    if time.format == "iso8601":
        return lambda at_ms: _iso(_EPOCH + timedelta(milliseconds=at_ms), time.zone, zone)
    return lambda at_ms: _formatted(_EPOCH + timedelta(milliseconds=at_ms), time, zone)


def _epoch(since_ms: int, unit_ms: int) -> int | float:
    return since_ms // unit_ms if since_ms % unit_ms == 0 else since_ms / unit_ms


def _iso(moment: datetime, name: str | None, zone: tzinfo) -> str:
    local = moment.astimezone(zone)
    is_clear = name is not None and local.fold == 0
    return (local.replace(tzinfo=None) if is_clear else local).isoformat()


def _formatted(moment: datetime, time: TimeFormat, zone: tzinfo) -> str:
    local = moment.astimezone(zone)
    is_offset = "%z" in time.format
    if moment.microsecond and "%f" not in time.format:
        raise InvalidInputError(
            "time format: expected whole seconds, as the format has no %f; add it to the mapping"
        )
    if local.fold and not is_offset:
        raise InvalidInputError(
            "time format: expected a time that the clock passes once; add %z to the mapping"
        )
    return local.strftime(time.format)


def _own_word(label: Label, places: LabelMapping) -> str:
    for word, source in places.sources.items():
        if source == label.source:
            return word
    return label.source


def _put(record: _Object, place: Place | None, value: object) -> None:
    """Write a value at its path; constants and absent values are not written."""
    if value is None or place is None or isinstance(place, Always):
        return
    inner = record
    for part in place.path[:-1]:
        inner = inner.setdefault(part, {})  # type: ignore[assignment]  # only dicts are put there
    inner[place.path[-1]] = value
