"""Writes simulated days to one CSV or Parquet file, which ``mappings/simulated.toml`` reads."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from deploy.simulator import SimulatedDay, canonical_columns
from models.errors import InvalidInputError
from models.tables import PARQUET_SUFFIXES

SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("bank", pa.string()),
        ("event_time_ms", pa.int64()),
        ("account_id", pa.string()),
        ("amount", pa.float64()),
        ("currency", pa.string()),
        ("terminal", pa.string()),
        ("merchant", pa.string()),
        ("device", pa.string()),
        ("channel", pa.string()),
        ("fraud", pa.int8()),
        ("scenario", pa.string()),
    ]
)
"""Columns of the file; ``scenario`` is for analysis only, never a feature."""


def write_days(days: Iterable[SimulatedDay], banks: Sequence[str], path: Path) -> int:
    """Write all days and return the number of rows; ``.parquet`` is Parquet, else CSV.

    Raises
    ------
    InvalidInputError
        If the file cannot be written.
    """
    is_parquet = path.suffix in PARQUET_SUFFIXES
    n_rows = 0
    try:
        with _writer(path, is_parquet=is_parquet) as writer:
            for day in days:
                writer.write_table(pa.table(canonical_columns(day, banks), schema=SCHEMA))
                n_rows += len(day)
    except OSError as error:
        raise InvalidInputError(f"{path}: expected a file to write, got: {error}") from error
    return n_rows


def _writer(path: Path, *, is_parquet: bool) -> "pq.ParquetWriter | pa_csv.CSVWriter":
    return pq.ParquetWriter(path, SCHEMA) if is_parquet else pa_csv.CSVWriter(path, SCHEMA)
