"""Simulated days become one file, the same in CSV and in Parquet."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from deploy.scenarios import SCENARIOS
from deploy.simulated_files import SCHEMA, write_days
from deploy.simulator import SimulationConfig, simulate
from models.errors import InvalidInputError

BANKS = tuple("abcde")
CONFIG = SimulationConfig(n_days=3, n_customers=80, n_terminals=30)


def days():
    """Yield the days of a small simulation."""
    return simulate(CONFIG, np.random.default_rng(4))


def test_parquet_holds_the_days_one_after_the_other(tmp_path):
    """Every payment once, in order, with what the simulation says of it."""
    path = tmp_path / "days.parquet"
    made = list(days())
    assert write_days(iter(made), BANKS, path) == sum(map(len, made))
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)

    def joined(name):
        return np.concatenate([getattr(day, name) for day in made])

    columns = {name: table[name].to_pylist() for name in table.column_names}
    assert columns["event_time_ms"] == joined("event_time_ms").tolist()
    assert columns["bank"] == [BANKS[i] for i in joined("bank")]
    assert columns["fraud"] == joined("is_fraud").astype(int).tolist()
    assert columns["scenario"] == [SCENARIOS[i] for i in joined("scenario")]
    assert columns["amount"] == pytest.approx(joined("amount"), abs=0.005)
    assert [one is None for one in columns["device"]] == (joined("device") < 0).tolist()
    assert len(set(columns["transaction_id"])) == len(made[0]) + len(made[1]) + len(made[2])


def test_csv_holds_the_same_rows(tmp_path):
    """With a header, and nothing where a payment has no device."""
    write_days(days(), BANKS, tmp_path / "days.csv")
    write_days(days(), BANKS, tmp_path / "days.parquet")
    texts = dict.fromkeys(SCHEMA.names, pa.string()) | {
        "event_time_ms": pa.int64(), "amount": pa.float64(), "fraud": pa.int8(),
    }  # fmt: skip
    options = pa_csv.ConvertOptions(column_types=texts, strings_can_be_null=True, null_values=[""])
    table = pa_csv.read_csv(tmp_path / "days.csv", convert_options=options)
    assert table.equals(pq.read_table(tmp_path / "days.parquet"))


def test_short_suffix_is_parquet_too(tmp_path):
    """``.pq`` as readers of tables take it."""
    n = write_days(days(), BANKS, tmp_path / "days.pq")
    assert pq.read_metadata(tmp_path / "days.pq").num_rows == n


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_no_days_are_a_file_with_names_alone(tmp_path, suffix):
    """Readers find the columns and no row."""
    path = tmp_path / f"none.{suffix}"
    assert write_days([], BANKS, path) == 0
    table = pq.read_table(path) if suffix == "parquet" else pa_csv.read_csv(path)
    assert table.column_names == SCHEMA.names
    assert table.num_rows == 0


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_file_that_cannot_be_written_is_refused(tmp_path, suffix):
    """The message names it."""
    path = tmp_path / "absent" / f"days.{suffix}"
    with pytest.raises(InvalidInputError, match="expected a file to write") as caught:
        write_days(days(), BANKS, path)
    assert str(path) in str(caught.value)
