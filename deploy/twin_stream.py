"""A twin's synthetic transactions as a table with times, accounts and amounts, in Parquet."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.features.accounts import DAY_MS, HOUR_MS
from models.schema import Schema
from models.twin import Sample

_NIGHT_H = 7  # hours of a day that the feature ``night`` counts
_WEEKEND = (0, 6)
_FIRST_WEEKDAY = 4  # of 1970-01-01, Sunday being 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """How synthetic rows are laid out.

    Parameters
    ----------
    start_day
        First day, UTC, since 1970.
    rate
        Transactions a day, > 0.
    per_account
        Transactions of an account, on average, > 0.
    """

    start_day: int
    rate: float
    per_account: float = 50.0

    def __post_init__(self) -> None:
        if not (self.rate > 0.0 and self.per_account > 0.0):
            raise InvalidInputError("twin: expected a rate and rows per account above 0")


def synthetic_table(
    sample: Sample, schema: Schema, plan: StreamPlan, rng: np.random.Generator
) -> pa.Table:
    """Return the rows in time order with all their features.

    Parameters
    ----------
    sample
        Drawn from a `models.twin.Twin`.
    schema
        Names its columns.
    plan
        Days, rate, accounts.
    rng
        Draws times and accounts.
    """
    n = len(sample.is_fraud)
    names = schema.feature_names
    columns = dict(zip(names, sample.rows.T, strict=True))
    n_days = max(int(np.ceil(n / plan.rate)), 1)
    times = event_times(
        columns["weekend"] >= 0.5, columns["night"] >= 0.5, plan.start_day, n_days, rng
    )
    account = rng.integers(max(int(n / plan.per_account), 1), size=n)
    order = np.argsort(times, kind="stable")
    amount = np.round(np.expm1(columns["log_amount"].astype(np.float64)), 2)
    fixed = {
        "transaction_id": [f"S{i:010d}" for i in range(n)],
        "event_time": pa.array(times[order], pa.timestamp("ms", tz="UTC")),
        "account_id": [f"A{i:08d}" for i in account[order].tolist()],
        "amount": _or_null(amount[order]),
        "currency": ["EUR"] * n,
        "fraud": sample.is_fraud[order].astype(np.int8),
    }
    features = {name: _or_null(values[order]) for name, values in columns.items()}
    return pa.table(fixed | features)


def _or_null(values: NDArray[np.floating]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def event_times(
    weekend: NDArray[np.bool_],
    night: NDArray[np.bool_],
    start_day: int,
    n_days: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return instants, in ms since 1970, that agree with what the features say of them.

    Parameters
    ----------
    weekend, night
        bool of shape (n,).
    start_day, n_days
        The days to spread over; where none of them is of the wanted kind, any.
    rng
        Draws day and time of day.
    """
    days = np.arange(start_day, start_day + n_days)
    is_weekend = np.isin((days + _FIRST_WEEKDAY) % 7, _WEEKEND)
    day = np.empty(len(weekend), np.int64)
    for kind in (False, True):
        choice = days[is_weekend == kind] if (is_weekend == kind).any() else days
        of_kind = np.flatnonzero(weekend == kind)
        day[of_kind] = choice[rng.integers(len(choice), size=len(of_kind))]
    edge = _NIGHT_H * HOUR_MS
    part = rng.random(len(night))
    in_day = np.where(night, part * edge, edge + part * (DAY_MS - edge))
    return day * DAY_MS + in_day.astype(np.int64)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file.

    Raises
    ------
    InvalidInputError
        If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    except OSError as error:
        raise InvalidInputError(f"{path}: expected a file to write, got: {error}") from error
