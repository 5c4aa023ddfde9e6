"""A bank's CSV or Parquet file -> canonical transactions, by the same mapping as its records.

A name of the mapping is a column name here (a dotted path is a column with dots in its name). A
cell gives what the same value in a JSON record gives; every cell of a CSV file is text. Rows come
out by (event time, transaction id), the order in which a stream processes them.
"""

from collections import Counter
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models import columns
from models.columns import Values
from models.decoding import RecordError, listed
from models.errors import InvalidInputError
from models.mapping import EPOCH_UNITS_MS, Always, At, AttributePlace, Mapping, TimeFormat
from models.record_shapes import Faults
from models.records import AttributeColumn, TransactionBatch
from models.toml_table import near_miss
from models.words import ABSENT, Words

PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Transactions of a file.

    Parameters
    ----------
    batch
        The good rows, by (event_time_ms, transaction_id).
    source_rows
        ndarray of shape (len(batch),), int64: which row of the file each one was, from 0.
    is_fraud
        ndarray of shape (len(batch),), bool; None when the mapping names no label column.
    bank
        Bank of each row; None when no bank column was asked for.
    errors
        The bad rows, as (row of the file, reason, detail).
    """

    batch: TransactionBatch
    source_rows: NDArray[np.int64]
    is_fraud: NDArray[np.bool_] | None
    bank: Sequence[str] | None
    errors: list[RecordError]


def read_table(path: Path, mapping: Mapping, *, bank_column: str | None = None) -> Table:
    """Read a CSV file (with a header) or a Parquet file.

    Parameters
    ----------
    path
        The file; ``.parquet`` and ``.pq`` are Parquet, anything else CSV in UTF-8.
    mapping
        Names its columns.
    bank_column
        Column naming the bank of a row; default the mapping's ``[table] bank``.

    Raises
    ------
    InvalidInputError
        If the file cannot be read or lacks a mapped column.
    """
    bank_column = bank_column or mapping.table_bank
    texts = [place.at.column for place in mapping.attributes.values() if place.type == "text"]
    cells = _Cells(_read(path, _names(mapping, bank_column), texts), path)
    faults: Faults = {}
    batch = _batch(mapping, cells, faults)
    is_fraud = bank = None
    if mapping.table_label is not None:
        is_fraud = columns.verdicts(cells.values(mapping.table_label), mapping.verdicts, faults)
    if bank_column is not None:
        bank = cells.texts(bank_column, "bank", faults)
    attributes = cells.attributes(mapping.attributes, faults)
    order = _order(batch, faults)
    if not _is_as_it_was(order, len(batch)):
        batch = batch.take(order)
        for name in attributes:  # one after the other: never two copies of all
            attributes[name] = attributes[name][order]
    return Table(
        batch=replace(batch, attributes=attributes),
        source_rows=order,
        is_fraud=None if is_fraud is None else is_fraud[order],
        bank=None if bank is None else [bank[i] for i in order.tolist()],
        errors=listed(faults),
    )


def _names(mapping: Mapping, bank_column: str | None) -> list[str]:
    places = [mapping.transaction_id, mapping.event_time, mapping.account_id, mapping.amount]
    if isinstance(mapping.currency, At):
        places.append(mapping.currency)
    places += mapping.entities.values()
    places += (place.at for place in mapping.attributes.values())
    extra = [name for name in (mapping.table_label, bank_column) if name is not None]
    return list(dict.fromkeys([place.column for place in places] + extra))


def _read(path: Path, names: list[str], texts: list[str]) -> pa.Table:
    """Return the wanted columns, those in ``texts`` coded; those of a CSV file are all text."""
    try:
        if path.suffix in PARQUET_SUFFIXES:
            _check_names(path, pq.read_schema(path).names, names)
            return pq.read_table(path, columns=names, read_dictionary=texts)
        with pa_csv.open_csv(path) as reader:
            _check_names(path, reader.schema.names, names)
        return pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                include_columns=names,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidInputError(f"{path}: expected a CSV or Parquet file, got: {error}") from error


def _check_names(path: Path, present: list[str], names: list[str]) -> None:
    for name in names:
        if name not in present:
            hint = near_miss(name, present)
            raise InvalidInputError(
                f"{path}: expected a column {name!r}, got {', '.join(present)}{hint}"
            )


def _batch(mapping: Mapping, cells: "_Cells", faults: Faults) -> TransactionBatch:
    currencies = list(mapping.currencies.values())
    ids = cells.unique_texts(mapping.transaction_id.column, "transaction_id", faults)
    accounts = cells.texts(mapping.account_id.column, "account_id", faults)
    at_ms = cells.instants(mapping.event_time.column, mapping.time, faults)
    codes, index = _currencies(mapping, cells, faults)
    minor = columns.minors(
        cells.numbers(mapping.amount.column),
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
        currency=codes,
        entities={
            kind: cells.optional_texts(at.column, kind, faults)
            for kind, at in mapping.entities.items()
        },
    )


def _currencies(
    mapping: Mapping, cells: "_Cells", faults: Faults
) -> tuple[Sequence[str], NDArray[np.intp]]:
    if isinstance(mapping.currency, Always):
        code = mapping.currency.value
        place = list(mapping.currencies).index(code)
        return [code] * len(cells), np.full(len(cells), place, np.intp)
    codes = cells.distinct(mapping.currency.column)
    return codes, columns.currency_indices(codes, mapping, faults)  # type: ignore[return-value]  # texts where good


class _Cells:
    """Columns of an Arrow table as values that `models.columns` takes."""

    def __init__(self, table: pa.Table, path: Path) -> None:
        self._table = table
        self._path = path

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def values(self, name: str) -> list[object]:
        """Return the cells as Python objects."""
        found: list[object] = self._table[name].to_pylist()
        return found

    def distinct(self, name: str) -> list[object]:
        """Return the cells as Python objects of which equal ones are the same object."""
        column = self._table[name].combine_chunks()
        encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
        words = [*self._checked(encoded.dictionary, name).to_pylist(), None]
        places = pc.fill_null(encoded.indices, len(words) - 1).to_numpy(zero_copy_only=False)
        return [words[i] for i in places.tolist()]

    def texts(self, name: str, field: str, faults: Faults) -> Sequence[str]:
        """Return required identifiers."""
        return columns.texts(self.distinct(name), field, faults)

    def unique_texts(self, name: str, field: str, faults: Faults) -> Sequence[str]:
        """Return required identifiers that hardly repeat."""
        column = self._table[name]
        if pa.types.is_dictionary(column.type):
            return self.texts(name, field, faults)
        return columns.texts(self._checked(column, name).to_pylist(), field, faults)

    def optional_texts(self, name: str, field: str, faults: Faults) -> Sequence[str | None]:
        """Return identifiers, None where absent."""
        return columns.optional_texts(self.distinct(name), field, faults)

    def numbers(self, name: str) -> Values:
        """Return numbers at once where all are clean, else the cells."""
        column = self._table[name]
        if pa.types.is_decimal(column.type):
            return self.values(name)
        if column.null_count or pa.types.is_boolean(column.type):
            return self.values(name)
        try:
            floats = pc.cast(column, pa.float64()).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return self.values(name)
        if _is_text(column.type) and not _is_exact(column, floats):
            return self.values(name)
        return floats  # type: ignore[no-any-return]  # pyarrow is untyped

    def attributes(
        self, places: AbstractMapping[str, AttributePlace], faults: Faults
    ) -> dict[str, AttributeColumn]:
        """Return the attributes and let go of their cells, one column after the other."""
        uses = Counter(place.at.column for place in places.values())
        found: dict[str, AttributeColumn] = {}
        for name, place in places.items():
            column = place.at.column
            found[name] = (
                self.words(column, name, faults)
                if place.type == "text"
                else self.optional_numbers(column, name, faults)
            )
            uses[column] -= 1
            if not uses[column]:
                self._table = self._table.drop_columns([column])
        return found

    def words(self, name: str, field: str, faults: Faults) -> Words:
        """Return texts of which each is looked at once."""
        column = self._table[name].combine_chunks()
        encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
        words = self._checked(encoded.dictionary, name).to_pylist()
        codes = pc.fill_null(encoded.indices, ABSENT).to_numpy(zero_copy_only=False)
        return columns.coded_texts(codes.astype(np.int32), words, field, faults)

    def optional_numbers(
        self, name: str, field: str, faults: Faults
    ) -> NDArray[np.float64] | NDArray[np.float32]:
        """Return numbers at once where all are clean or absent, else cell by cell."""
        column = self._table[name]
        kind = column.type
        if not (pa.types.is_decimal(kind) or pa.types.is_boolean(kind)):
            try:
                as_floats = pc.cast(column, pa.float32() if _is_short(kind) else pa.float64())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                return columns.optional_numbers(self.values(name), field, faults)
            floats = as_floats.to_numpy()
            is_exact = not _is_text(kind) or _longest(column) <= columns.EXACT_CHARS
            if is_exact and columns.are_bounded(floats, n_absent=column.null_count):
                return floats  # type: ignore[no-any-return]  # pyarrow is untyped
        return columns.optional_numbers(self.values(name), field, faults)

    def instants(self, name: str, time: TimeFormat, faults: Faults) -> NDArray[np.int64]:
        """Return milliseconds since 1970 UTC; a column of timestamps needs no format."""
        column = self._table[name]
        if pa.types.is_timestamp(column.type):
            return columns.instants(_iso_cells(column), _as_iso(time), "event_time", faults)
        values = self.numbers(name) if time.format in EPOCH_UNITS_MS else self.values(name)
        return columns.instants(values, time, "event_time", faults)

    def _checked(self, words: pa.Array, name: str) -> pa.Array:
        kind = words.type
        if pa.types.is_integer(kind):
            return pc.cast(words, pa.string())
        if _is_text(kind) or pa.types.is_null(kind):
            return words
        raise InvalidInputError(
            f"{self._path}: {name}: expected texts or whole numbers, got {kind}"
        )


def _is_as_it_was(order: NDArray[np.int64], n_rows: int) -> bool:
    return len(order) == n_rows and bool(np.all(order == np.arange(n_rows)))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_short(kind: pa.DataType) -> bool:
    """Return whether float32 holds every number of a type."""
    return kind in (pa.float32(), pa.float16(), pa.int8(), pa.uint8(), pa.int16(), pa.uint16())


def _is_exact(column: pa.ChunkedArray, floats: NDArray[np.float64]) -> bool:
    """Return whether numbers read from text at once are those read cell by cell."""
    return _longest(column) <= columns.EXACT_CHARS and bool(np.isfinite(floats).all())


def _longest(column: pa.ChunkedArray) -> int:
    return pc.max(pc.utf8_length(column)).as_py() or 0


def _iso_cells(column: pa.ChunkedArray) -> list[object]:
    seconds = pc.cast(column, pa.timestamp("us", tz=column.type.tz), safe=False)
    return [None if each is None else each.isoformat() for each in seconds.to_pylist()]


def _as_iso(time: TimeFormat) -> TimeFormat:
    return TimeFormat(format="iso8601", zone=time.zone)


def _order(batch: TransactionBatch, faults: Faults) -> NDArray[np.int64]:
    """Return the good rows by (event time, transaction id)."""
    rows = np.arange(len(batch), dtype=np.int64)
    if faults:
        rows = np.delete(rows, list(faults))
    times = batch.event_time_ms[rows]
    rows = rows[np.argsort(times, kind="stable")]
    times = batch.event_time_ms[rows]
    starts = np.flatnonzero(np.r_[True, times[1:] != times[:-1], True]) if len(rows) else rows
    tied = np.flatnonzero(np.diff(starts) > 1)
    for first, last in zip(starts[tied].tolist(), starts[tied + 1].tolist(), strict=True):
        group = rows[first:last].tolist()
        rows[first:last] = sorted(group, key=batch.transaction_id.__getitem__)
    return rows
