"""``amalgam twin``: a small simulated file to a synthetic stream and its fidelity."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from deploy.bank_rows import read_bank_rows
from deploy.cli import app
from deploy.twin_command import TwinConfig, twin_of_rows
from deploy.twin_fidelity import correlation_errors, distances
from deploy.twin_rows import feature_rows
from deploy.twin_stream import event_times
from models.copula import Moments
from models.errors import InvalidInputError
from models.features.accounts import DAY_MS
from models.histograms import N_CELLS
from tests.unit.deploy.small_backtest import DELAY_D, MAPPING, write_small

N = 5_000


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("twin") / "small.parquet")


def config_of(file, output, **changes):
    settings = {
        "file": file,
        "mapping": MAPPING,
        "output": output,
        "bank_column": "bank",
        "n": N,
        "label_delay_d": DELAY_D,
    }
    return TwinConfig(**(settings | changes))


@pytest.fixture(scope="module")
def parts():
    return []


@pytest.fixture(scope="module")
def rows(file, parts):
    data = read_bank_rows(file, MAPPING, bank_column="bank")
    return feature_rows(data, delay_ms=int(DELAY_D * DAY_MS), on_progress=parts.append)


@pytest.fixture(scope="module")
def made(file, rows, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "twin.parquet"
    return twin_of_rows(config_of(file, output), rows, n_banks=2), output


def test_every_row_gets_the_features_that_its_bank_computes(file, rows, parts) -> None:
    """The amount's feature is that of the file's own amount, row by row; progress ends at 1."""
    data = read_bank_rows(file, MAPPING, bank_column="bank")
    assert len(rows.features) == len(data.batch)
    expected = np.log1p(data.batch.amount)
    assert rows.features[:, 0] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert np.nanmax(rows.features[:, rows.schema.feature_names.index("terminal.f_7d")]) > 0
    assert parts[-1] == 1.0


def test_the_stream_is_a_table_in_time_order(made) -> None:
    """Ids, times from the cut on, accounts, amounts of the feature, labels, all features."""
    result, output = made
    table = pq.read_table(output)
    fixed = ["transaction_id", "event_time", "account_id", "amount", "currency", "fraud"]
    assert table.column_names == fixed + list(result.names)
    assert table.num_rows == N == result.n
    times = table["event_time"].cast("int64").to_numpy()
    assert (np.diff(times) >= 0).all()
    assert len(set(table["transaction_id"].to_pylist())) == N
    assert table["fraud"].to_numpy().sum() == result.n_frauds > 0
    amount = table["amount"].to_numpy()
    assert np.abs(amount - np.expm1(table["log_amount"].to_numpy())).max() <= 0.0051
    weekday = (times // DAY_MS + 4) % 7
    night = times % DAY_MS // 3_600_000 <= 6
    assert np.array_equal(night, table["night"].to_numpy() == 1)
    is_weekend = np.isin(weekday, (0, 6))
    if is_weekend.any() and not is_weekend.all():
        assert np.array_equal(is_weekend, table["weekend"].to_numpy() == 1)


def test_the_twin_is_close_to_its_banks(made) -> None:
    """Values within what 5,000 draws can differ; correlations within the noise of a tenth of the
    legitimate rows, about 730; a scorecard learns from it.
    """
    result, _ = made
    bound = np.sqrt(np.log(2e6) / 2)
    n = np.array([result.n - result.n_frauds, result.n_frauds])
    assert (result.fidelity.distance < bound / np.sqrt(n)).all()
    assert result.fidelity.correlation_error[0] < 0.05
    figures = result.fidelity.figures()
    assert figures["ap_trained_on_twin"] > 0.2
    assert figures["ap_trained_on_real"] > 0.2


def test_the_same_seed_writes_the_same_stream(made, file, rows, tmp_path) -> None:
    """Byte for byte in values."""
    again = tmp_path / "again.parquet"
    twin_of_rows(config_of(file, again), rows, n_banks=2)
    assert pq.read_table(again).equals(pq.read_table(made[1]))


def test_distances_are_those_of_cumulative_shares() -> None:
    """By hand: shares .5, 1 against .25, 1 differ by .25; an empty class has none."""
    real, drawn = (np.zeros((1, 2, N_CELLS), np.int64) for _ in range(2))
    real[0, 0, [10, 20]] = 5, 5
    drawn[0, 0, [10, 20]] = 1, 3
    got = distances(real, drawn)
    assert got[0, 0] == pytest.approx(0.25)
    assert np.isnan(got[0, 1])


def test_equal_moments_have_no_correlation_error() -> None:
    """Also where there is nothing."""
    mean, worst = correlation_errors(Moments.empty(3), Moments.empty(3))
    assert mean.tolist() == worst.tolist() == [0.0, 0.0]


def test_days_that_no_row_asks_for_are_taken_all_the_same() -> None:
    """A single Monday for rows that say weekend."""
    monday = 4  # 1970-01-05
    rng = np.random.default_rng(0)
    times = event_times(np.ones(9, bool), np.zeros(9, bool), monday, 1, rng)
    assert set((times // DAY_MS).tolist()) == {monday}
    assert (times % DAY_MS >= 7 * 3_600_000).all()


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"n": 0}, {"fraud_share": 1.2}, {"label_delay_d": float("nan")}]
)
def test_impossible_orders_are_refused(change, file, tmp_path) -> None:
    """Before anything is read."""
    with pytest.raises(InvalidInputError, match="expected"):
        config_of(file, tmp_path / "x.parquet", **change)


def test_a_cut_before_the_first_fraud_is_refused(file, rows, tmp_path) -> None:
    """With a message."""
    with pytest.raises(InvalidInputError, match="expected frauds before the cut"):
        twin_of_rows(config_of(file, tmp_path / "x.parquet", cut=0), rows, n_banks=2)


def test_the_command_prints_the_table_and_writes_the_file(file, tmp_path) -> None:
    """And the figures as JSON."""
    output, results = tmp_path / "twin.parquet", tmp_path / "twin.json"
    arguments = ["twin", str(file), str(output), "--mapping", str(MAPPING)]
    arguments += ["--bank-column", "bank", "--n", "300", "--fraud-share", "0.5"]
    done = CliRunner().invoke(app, [*arguments, "--results", str(results)])
    assert done.exit_code == 0, done.output
    assert "log_amount" in done.output
    assert "300 transactions" in done.output
    assert pq.read_table(output).num_rows == 300
    assert "correlation_error_legit_mean" in results.read_text()
